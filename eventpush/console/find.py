"""The page Find: a receipt, an id, or a device and a time; the trace as a timeline."""

from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from eventpush.console import wording
from eventpush.console.layout import definitions, heading, tag, text
from eventpush.console.own_commands import run_json
from eventpush.console.sources import Sources
from eventpush.tracing.timeline import Stage, Trace
from runtime.platform.errors import OperatorError

_TRACES_SHOWN = 50
_IMEI_DIGITS = 15
_EVENT = "SELECT * EXCEPT (extra) FROM telematics.events WHERE event_id = {id:UUID}"
_OUTCOME_CLASS = {"event": "ok", "duplicate": "ok", "waiting": "behind"}


def build(sources: Sources, wanted: str, around: str) -> None:
    """Build the page, and search if the address says for what."""
    view = _Find(sources, wanted, around)
    if wanted:
        ui.timer(0, view.search, once=True)


def address(identifier: str) -> str:
    """Return the address of a search."""
    return f"/find?{urlencode({'q': identifier})}"


def arguments(wanted: str, around: str, within_min: int) -> list[str]:
    """Return the arguments of `eventpush trace`; a word of 15 digits is an IMEI. Pure."""
    if wanted.isdigit() and len(wanted) == _IMEI_DIGITS:
        return ["trace", "--json", f"--imei={wanted}", f"--around={around}", f"--within={within_min}"]
    return ["trace", "--json", "--", wanted]


class _Find:
    def __init__(self, sources: Sources, wanted: str, around: str) -> None:
        self._sources = sources
        with tag("form").classes("search").props("role=search").on("submit.prevent", self.search):
            self._wanted = ui.input("Receipt, event id, dead letter id or IMEI", value=wanted)
            self._wanted.props("outlined dense autofocus clearable spellcheck=false").classes("grow")
            self._around = ui.input("Around, UTC (for an IMEI)", value=around, placeholder="2026-11-26T02:14:00Z")
            self._around.props("outlined dense spellcheck=false")
            self._within = ui.number("± minutes", value=10, min=1, max=1_440, format="%d").props("outlined dense")
            ui.button("Find").props("type=submit no-caps unelevated")
        self._status = text("p").props("role=status")
        self._results = tag("div").classes("results")

    async def search(self) -> None:
        """Trace what the form asks for."""
        wanted, around = (self._wanted.value or "").strip(), (self._around.value or "").strip()
        self._results.clear()
        if not wanted:
            self._status.set_text("Enter a receipt, an id or an IMEI.")
            return
        asked = arguments(wanted, around, int(self._within.value or 1))
        if "--around=" in asked:
            self._status.set_text("An IMEI needs a time: enter when it happened, such as 2026-11-26T02:14:00Z.")
            return
        self._status.set_text("Searching Kafka and ClickHouse …")
        try:
            traces = await run_json(list[Trace], *asked)
        except OperatorError as problem:
            self._status.set_text(str(problem))
            return
        more = f", the first {_TRACES_SHOWN} are shown" if len(traces) > _TRACES_SHOWN else ""
        self._status.set_text(f"{len(traces)} {'record' if len(traces) == 1 else 'records'} found{more}.")
        with self._results:
            for trace in traces[:_TRACES_SHOWN]:
                _show(trace)
        if len(traces) == 1 and traces[0].event_id and traces[0].outcome in {"event", "duplicate"}:
            await self._show_event(traces[0].event_id)

    async def _show_event(self, event_id: str) -> None:
        try:
            rows = await self._sources.clickhouse.rows(_EVENT, {"id": event_id})
        except OperatorError:
            return  # the trace has said so
        with self._results:
            for row in rows:
                with tag("section").classes("panel fields"):
                    heading(2, "The event in ClickHouse")
                    definitions([(name, shown(value)) for name, value in row.items()])


def shown(value: Any) -> str:
    """Return a value of a row as text."""
    return wording.UNKNOWN if value is None else str(value)


def _show(trace: Trace) -> None:
    named = [
        ("Event", trace.event),
        ("IMEI", trace.imei),
        ("Receipt", trace.receipt_id),
        ("Event id", trace.event_id),
        ("Dead letter id", trace.dead_letter_id),
        ("Sender", trace.sender),
        ("Size", None if trace.size_bytes is None else f"{trace.size_bytes:,} bytes"),
    ]
    with tag("article").classes(f"panel trace {_OUTCOME_CLASS.get(trace.outcome, 'problem')}"):
        heading(2, trace.summary[:1].upper() + trace.summary[1:])
        definitions([(label, value) for label, value in named if value])
        with tag("ol").classes("timeline"):
            for stage in trace.stages:
                _show_stage(stage)
        for note in trace.notes:
            text("p", note).classes("note")


def _show_stage(stage: Stage) -> None:
    with tag("li"):
        text("span", stage.stage).classes("stage")
        text("span", "" if stage.after_s is None else f"{stage.after_s:+.3f} s").classes("after")
        text("span", stage.detail).classes("detail")
        text("time", stage.at or "").classes("at")
