"""A trace as text for people. Pure."""

from eventpush.text import printable
from eventpush.tracing.timeline import Stage, Trace

_TIME_WIDTH = len("2026-11-24T00:10:00.000000Z")


def lines(trace: Trace) -> list[str]:
    """Return the trace as lines: a heading, one line a stage, then notes."""
    named = {"event": trace.event, "IMEI": trace.imei, "receipt": trace.receipt_id}
    heading = ", ".join(f"{name} {value}" for name, value in named.items() if value) or str(trace.raw)
    shown = [f"{heading}: {trace.summary}", *(_line(stage) for stage in trace.stages)]
    shown += [f"  note: {note}" for note in trace.notes]
    return [printable(line) for line in shown]


def _line(stage: Stage) -> str:
    after = "" if stage.after_s is None else f"{stage.after_s:+.3f} s"
    return f"  {stage.at or '':<{_TIME_WIDTH}} {after:>12}  {stage.stage:<10} {stage.detail}"
