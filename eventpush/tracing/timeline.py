"""Put the facts of one raw event into order: its outcome, and when it passed each stage. Pure."""

from collections.abc import Iterator

import msgspec

from eventpush.tracing.facts import Facts, Position
from schemas import times, topics
from schemas.dead_letter import Violation


class Stage(msgspec.Struct, frozen=True):
    """One stage that the event passed; `after_s` counts from the stage before it that has a time."""

    stage: str
    at: str | None  # RFC 3339, UTC
    after_s: float | None
    detail: str


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one raw event. `outcome` is one of event, duplicate, conflict, dead_letter, waiting, erased,
    missing.
    """

    outcome: str
    summary: str
    event: str | None
    imei: str | None
    receipt_id: str | None
    event_id: str | None
    dead_letter_id: str | None
    raw: Position
    size_bytes: int | None
    sender: str | None
    reasons: list[Violation]
    published: list[Position]
    stages: list[Stage]
    notes: list[str]


def timeline(facts: Facts) -> Trace:
    """Return the trace of one raw record."""
    outcome, summary = _outcome(facts)
    own_event = facts.event if outcome in {"event", "duplicate"} else None
    letter = facts.dead_letter if outcome in {"dead_letter", "conflict", "duplicate"} else None
    known = [found for found in (facts.arrival, own_event, letter) if found is not None]
    rows = [row for row in (own_event, letter) if row is not None]
    return Trace(
        outcome=outcome,
        summary=summary,
        event=next((row.event for row in rows if row.event), None),
        imei=next((row.imei for row in rows if row.imei), None),
        receipt_id=next((found.receipt_id for found in known if found.receipt_id), None),
        event_id=own_event.event_id if own_event else facts.event_id,
        dead_letter_id=letter.dead_letter_id if letter else None,
        raw=facts.raw,
        size_bytes=len(facts.arrival.payload) if facts.arrival else None,
        sender=facts.arrival.sender if facts.arrival else None,
        reasons=letter.reasons if letter else facts.violations,
        published=facts.published,
        stages=_with_intervals(_stages(facts, outcome, summary)),
        notes=facts.notes,
    )


def _outcome(facts: Facts) -> tuple[str, str]:
    """Return the outcome's code and one line that says it."""
    return _own_row(facts) or _erased(facts) or _own_output(facts) or _earlier(facts) or _progress(facts)


def _own_row(facts: Facts) -> tuple[str, str] | None:
    """Return the outcome by a row of this very raw record."""
    letter, event = facts.dead_letter, facts.event
    if letter is not None and letter.raw == facts.raw:
        if letter.conflict_with_event_id:
            return (
                "conflict",
                f"conflict with event {letter.conflict_with_event_id}: dead letter {letter.dead_letter_id}",
            )
        return "dead_letter", f"dead letter {letter.dead_letter_id} of stage {letter.stage}"
    return ("event", f"event {event.event_id}") if event is not None and event.raw == facts.raw else None


def _erased(facts: Facts) -> tuple[str, str] | None:
    """Return the outcome of a raw record that Kafka still has of an erased device."""
    return (
        ("erased", "the device was erased: its events are dropped, and not stored any more")
        if facts.is_erased
        else None
    )


def _own_output(facts: Facts) -> tuple[str, str] | None:
    """Return the outcome by what the stream stage wrote for this raw record, without a row yet."""
    written = {position.topic for position in facts.published}
    if topics.DEAD_LETTER in written:
        return "dead_letter", _unstored("dead letter", facts)
    if topics.EVENTS in written:  # with a row of another raw record: ClickHouse keeps the earlier arrival
        return ("event" if facts.event else "waiting"), _unstored(f"event {facts.event_id}", facts)
    return None


def _earlier(facts: Facts) -> tuple[str, str] | None:
    """Return the outcome by the row of an earlier raw record of the same payload or identity."""
    if facts.streams_behind:
        return None
    letter, event = facts.dead_letter, facts.event
    if letter is not None:
        return "duplicate", f"duplicate of dead letter {letter.dead_letter_id}, first received in {letter.raw}"
    return ("duplicate", f"duplicate of event {event.event_id}, first received in {event.raw}") if event else None


def _progress(facts: Facts) -> tuple[str, str]:
    """Return the outcome by how far the stream stage is."""
    if facts.streams_behind is None:
        return "waiting", "accepted; Kafka did not say how far the stream stage is"
    if facts.streams_behind:
        return "waiting", f"waiting for the stream stage, {facts.streams_behind} records behind"
    if facts.event_id:
        return "duplicate", f"duplicate of event {facts.event_id}, which is not in ClickHouse yet"
    return "missing", "processed, but without an outcome in Kafka or ClickHouse: run `eventpush account`"


def _unstored(what: str, facts: Facts) -> str:
    behind = f", {facts.sink_behind} records behind" if facts.sink_behind else ""
    if facts.sink_behind == 0 and facts.event is None and facts.dead_letter is None:
        return f"{what}, published; it was not in ClickHouse when asked: trace it again"
    return f"{what}, waiting for the sink{behind}" if facts.sink_behind else f"{what}, published"


def _stages(facts: Facts, outcome: str, summary: str) -> Iterator[tuple[str, int | None, str]]:
    """Yield each stage with its time, if known, and its line."""
    arrival, event, letter = facts.arrival, facts.event, facts.dead_letter
    own = next((row for row in (event, letter) if row is not None and row.raw == facts.raw), None)
    received_us = arrival.received_us if arrival else own.received_us if own else None
    if arrival:
        yield "request", received_us, f"sender {arrival.sender or 'not named'}, {len(arrival.payload)} bytes"
        if arrival.replay:
            replay = arrival.replay
            yield "replay", None, f"{replay.replay_id}, attempt {replay.attempt} of dead letter {replay.dead_letter_id}"
    else:
        yield "request", received_us, "sender and size unknown: Kafka no longer has the raw record"
    yield "raw topic", None, str(facts.raw)
    yield "outcome", facts.committed_us, summary
    for reason in letter.reasons if letter and outcome != "event" else facts.violations:
        yield (
            "reason",
            None,
            f"{reason.field or 'payload'} {reason.code}: found {reason.found}, expected {reason.expected}",
        )
    for position in facts.published:
        yield "published", None, str(position)
    if facts.registry:
        yield "registry", None, f"version {facts.registry.position}, loaded {times.rfc3339(facts.registry.loaded_us)}"
    if own is not None:
        table = "telematics.events" if own is event else "telematics.dead_letters"
        yield "row", own.inserted_us, f"inserted into {table}"


def _with_intervals(stages: Iterator[tuple[str, int | None, str]]) -> list[Stage]:
    found: list[Stage] = []
    before_us: int | None = None
    for name, at_us, detail in stages:
        after_s = None if at_us is None or before_us is None else round((at_us - before_us) / 1e6, 6)
        found.append(Stage(name, None if at_us is None else times.rfc3339(at_us), after_s, detail))
        before_us = before_us if at_us is None else at_us
    return found
