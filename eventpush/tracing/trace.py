"""Trace events: ask ClickHouse and Kafka, then let `timeline` put the facts in order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from eventpush.erasure.subject import read_deny_list
from eventpush.tracing import clickhouse_facts, kafka_facts
from eventpush.tracing.clickhouse_facts import Rows
from eventpush.tracing.facts import Arrival, DeadLetterRow, EventRow, Facts, Position
from eventpush.tracing.identification import Identification, identify
from eventpush.tracing.timeline import Trace, timeline
from eventpush.tracing.wanted import Wanted
from runtime.platform.clock import clock_limits
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import times, topics
from schemas.erasure import NOBODY

T = TypeVar("T")

_NEAR_US = 1_000_000  # records of one request share their arrival


async def trace(settings: Settings, wanted: Wanted) -> list[Trace]:
    """Return the trace of each raw record that is asked for, in order of arrival.

    Works with Kafka alone and with ClickHouse alone, and says so in the notes. Raise `OperatorError` if neither
    answers, or if nothing is found.
    """
    notes: list[str] = []
    rows = await _or_note(clickhouse_facts.find(settings, wanted), Rows(), "ClickHouse", notes)
    arrivals = await _or_note(_arrivals(settings, wanted, rows), None, "Kafka", notes)
    if len(notes) == 2:
        raise OperatorError("neither Kafka nor ClickHouse answers", "run `eventpush check`")
    kafka = arrivals is not None
    clock = clock_limits(settings)
    identified = {a.position: identify(a.payload, a.received_us, clock, a.replay) for a in arrivals or ()}
    rows = _merged(rows, await _or_note(_related(settings, identified.values()), Rows(), "ClickHouse", []))
    facts = _facts(arrivals or [], identified, rows, own=_own(rows, wanted))
    if not facts:
        raise OperatorError(f"no trace of {_shown(wanted)}", _searched(wanted, kafka=kafka))
    erased = await _or_note(read_deny_list(settings), NOBODY, "the deny list", notes) if kafka else NOBODY
    for of_one in facts:
        of_one.is_erased = of_one.arrival is not None and erased.mentions(of_one.arrival.payload)
        if kafka:
            await _or_note(_add_kafka(settings, of_one, identified.get(of_one.raw)), None, "Kafka", notes)
        if kafka and of_one.arrival is None:
            of_one.notes.append("Kafka has deleted the raw record: this is from ClickHouse alone")
        of_one.notes += notes
    return [timeline(of_one) for of_one in facts]


async def _or_note(found: Awaitable[T], otherwise: T, source: str, notes: list[str]) -> T:
    try:
        return await found
    except OperatorError as problem:
        notes.append(f"without {source}: {problem}")
        return otherwise


async def _arrivals(settings: Settings, wanted: Wanted, rows: Rows) -> list[Arrival]:
    """Return the raw records: near the rows' arrivals where there are rows, else in the time that is asked for."""
    clock = clock_limits(settings)
    found: list[EventRow | DeadLetterRow] = [*rows.events, *rows.dead_letters]
    matches: Callable[[Arrival], bool] = lambda arrival: wanted.matches(arrival, clock)  # noqa: E731
    if wanted.imei is None and found:
        received_us = [row.received_us for row in found]
        since_us, until_us = min(received_us) - _NEAR_US, max(received_us) + _NEAR_US
    else:
        since_us, until_us = wanted.since_us, wanted.until_us
    arrivals = await kafka_facts.arrivals(settings, since_us, until_us, matches)
    there = {arrival.position for arrival in arrivals}
    rest = sorted({row.raw for row in found} - there)  # a replay keeps its arrival, and is written later
    return sorted(
        [*arrivals, *await kafka_facts.arrivals_at(settings, rest)], key=lambda a: (a.received_us, a.position)
    )


async def _related(settings: Settings, identified: Iterable[Identification]) -> Rows:
    """Return the rows of the same identities and payloads: what a duplicate is a duplicate of."""
    listed = list(identified)
    event_ids = {identification.event_id for identification in listed if identification.event_id}
    return await clickhouse_facts.by_ids(settings, sorted(event_ids), sorted({v.dead_letter_id for v in listed}))


def _merged(first: Rows, second: Rows) -> Rows:
    events = {row.event_id: row for row in [*first.events, *second.events]}
    letters = {row.dead_letter_id: row for row in [*first.dead_letters, *second.dead_letters]}
    return Rows(list(events.values()), list(letters.values()))


def _own(rows: Rows, wanted: Wanted) -> set[Position]:
    """Return the raw positions of rows that are themselves asked for, not only related."""
    found: list[EventRow | DeadLetterRow] = [*rows.events, *rows.dead_letters]
    if wanted.imei is not None:
        return {row.raw for row in found if row.imei == wanted.imei}
    if wanted.receipt is not None:
        return {row.raw for row in found if (row.receipt_id or "").split(".")[0] == wanted.receipt.split(".")[0]}
    return {row.raw for row in rows.events if row.event_id == wanted.id} | {
        row.raw for row in rows.dead_letters if row.dead_letter_id == wanted.id
    }


def _facts(
    arrivals: list[Arrival], identified: dict[Position, Identification], rows: Rows, own: set[Position]
) -> list[Facts]:
    """Join raw records and rows; a row whose raw record is gone stands for itself."""
    events = {row.event_id: row for row in rows.events}
    letters = {row.dead_letter_id: row for row in rows.dead_letters}
    events_at, letters_at = {row.raw: row for row in rows.events}, {row.raw: row for row in rows.dead_letters}
    found = []
    for arrival in arrivals:
        identification = identified[arrival.position]
        found.append(
            Facts(
                raw=arrival.position,
                arrival=arrival,
                event=events.get(identification.event_id or ""),
                dead_letter=letters.get(identification.dead_letter_id) or letters_at.get(arrival.position),
                event_id=identification.event_id,
                violations=identification.violations,
            )
        )
    gone = sorted(own - {arrival.position for arrival in arrivals})
    return found + [Facts(raw=at, event=events_at.get(at), dead_letter=letters_at.get(at)) for at in gone]


async def _add_kafka(settings: Settings, facts: Facts, identification: Identification | None) -> None:
    """Add what Kafka says: the batch, the outputs, how far the stages are, and the registry's entry."""
    event = facts.event.event if facts.event else identification.event if identification else None
    type_topic = topics.of_type(event) if event else None
    batch, facts.published, facts.streams_behind = await asyncio.gather(
        kafka_facts.batch_of(settings, facts.raw),
        kafka_facts.outputs(settings, facts.raw, type_topic),
        kafka_facts.behind(settings, settings.streams_app_id, facts.raw),
    )
    facts.committed_us = None if batch is None else times.parse(batch.committed_at)
    for position in facts.published:
        if position.topic in {topics.EVENTS, topics.DEAD_LETTER}:
            facts.sink_behind = await kafka_facts.behind(settings, settings.sink_app_id, position)
    if facts.event is not None and facts.event.vehicle is not None:
        facts.registry = await kafka_facts.registry_entry(settings, facts.event.imei)


def _shown(wanted: Wanted) -> str:
    return wanted.receipt or wanted.id or f"IMEI {wanted.imei}"


def _searched(wanted: Wanted, *, kafka: bool) -> str:
    since, until = times.rfc3339(wanted.since_us), times.rfc3339(wanted.until_us)
    if not kafka:
        return "Kafka was not searched: start it, and try again"
    return f"ClickHouse has no row of it, nor has {topics.RAW} a record from {since} to {until}: try an earlier --since"
