"""Reconcile: read summaries and offsets from Kafka and counts from ClickHouse, then examine what differs."""

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush import topic_reader
from eventpush.clickhouse_client import connected
from eventpush.erasure.subject import read_deny_list
from eventpush.reconciliation import arithmetic
from eventpush.reconciliation.arithmetic import Chunk, Coverage, Discrepancy, MinuteAndType, OutcomeCounts
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import account as summaries
from schemas import tables, topics
from schemas.account import BatchAccount
from schemas.erasure import Erased
from schemas.event import RawPosition
from schemas.json_text import decoder_of

_IDS_AT_ONCE = 5_000


@dataclass(frozen=True)
class _OutcomeTopic:
    """A topic of outcomes, and the view that shows its records as rows."""

    topic: str
    view: str
    id_column: str
    dead_letters: bool
    why_missing: str


_EVENTS = _OutcomeTopic(topics.EVENTS, tables.EVENTS.view, "event_id", False, "unique but not in telematics.events")
_DEAD = _OutcomeTopic(
    topics.DEAD_LETTER,
    tables.DEAD_LETTERS.view,
    "dead_letter_id",
    True,
    "dead-lettered but not in telematics.dead_letters",
)

# The sink's own dead letters hold their position on the events topic; the raw position is in the payload.
_ROWS = """
SELECT roundDown(at, {bounds:Array(UInt64)}) AS chunk, count() FROM (
    SELECT raw.partition AS of, raw.offset AS at, received_at FROM %s WHERE raw.topic = {topic:String}
    UNION ALL
    SELECT JSONExtractUInt(payload, 'raw', 'partition'), JSONExtractUInt(payload, 'raw', 'offset'), received_at
    FROM telematics.dead_letters WHERE stage = 'sink' AND {of_events:Bool}
) WHERE of = {partition:UInt32} AND at >= {first:UInt64} AND at < {next:UInt64} AND received_at >= {since:String}
GROUP BY chunk
"""

_BY_MINUTE = """
SELECT formatDateTime(toStartOfMinute(received_at), '%%Y-%%m-%%dT%%H:%%iZ', 'UTC'), ifNull(toString(event), ''), count()
FROM %s WHERE received_at >= {since:String} AND raw.topic = {topic:String}
    AND raw.offset >= {firsts:Array(UInt64)}[raw.partition + 1] GROUP BY ALL
"""


class Outcome(msgspec.Struct, gc=False):
    """The fields needed from a record on either topic."""

    raw: RawPosition
    event_id: str | None = None
    dead_letter_id: str | None = None


_outcome: Callable[[bytes], Outcome] = decoder_of(Outcome)


@dataclass
class Reconciliation:
    """The result: counts by outcome, what is in flight, and discrepancies."""

    coverages: list[Coverage] = field(default_factory=list)
    outcomes: dict[MinuteAndType, OutcomeCounts] = field(default_factory=dict)
    to_clickhouse: int = 0  # records that the sink has not stored yet
    discrepancies: list[Discrepancy] = field(default_factory=list)
    erased: int = 0  # devices and drivers on the deny list: their events are accepted, and not stored any more

    @property
    def replayed(self) -> int:
        """Raw records that replays sent, as far as they are processed."""
        return sum(counts.replayed for counts in self.outcomes.values())

    @property
    def accepted(self) -> int:
        """Raw records that senders sent."""
        return sum(coverage.records for coverage in self.coverages) - self.replayed


async def reconcile(settings: Settings) -> Reconciliation:
    """Read everything and reconcile it; raise `OperatorError` if Kafka or ClickHouse is unavailable."""
    # The order matters: each source may be ahead of those read before it, never behind.
    batches, began = await _summaries(settings), await topic_reader.offsets(settings, topics.ACCOUNT)
    raw = await topic_reader.offsets(settings, topics.RAW)
    erased = await read_deny_list(settings)
    result = Reconciliation(erased=len(erased))
    for partition, (begin, end) in raw.items():
        complete = began.get(partition, (0, 0))[0] == 0
        found = arithmetic.coverage(partition, batches[partition], begin, end, complete=complete)
        result.coverages.append(found)
        result.discrepancies += found.discrepancies
    since = min((count.minute for of in batches.values() for batch in of for count in batch.counts), default="")
    async with connected(settings) as client:
        for target in (_EVENTS, _DEAD):
            waiting = await _waiting(settings, target, erased)
            result.to_clickhouse += sum(len(offsets) for offsets in waiting.values())
            for partition, of in batches.items():
                chunks = arithmetic.chunks(partition, of)
                result.discrepancies += await _missing(
                    settings, client, target, erased, chunks, waiting[partition], since
                )
        firsts = [coverage.first for coverage in sorted(result.coverages, key=lambda coverage: coverage.partition)]
        stored, dead = [await _by_minute(client, target, since, firsts) for target in (_EVENTS, _DEAD)]
    result.outcomes = arithmetic.count_outcomes((batch for of in batches.values() for batch in of), stored, dead)
    return result


async def _summaries(settings: Settings) -> dict[int, list[BatchAccount]]:
    """Return the stream stage's batch summaries, by partition."""
    found: defaultdict[int, list[BatchAccount]] = defaultdict(list)
    async with aclosing(topic_reader.records(settings, topics.ACCOUNT)) as batches:
        async for partition, records in batches:
            for record in records:
                found[partition].append(_summary(partition, record))
    return found


def _summary(partition: int, record: Any) -> BatchAccount:
    try:
        return summaries.decode(record.value)
    except msgspec.DecodeError as error:
        raise OperatorError(
            f"{topics.ACCOUNT} partition {partition} offset {record.offset} is not a batch summary ({error})",
            "only the stream stage may write to that topic",
        ) from None


async def _waiting(settings: Settings, target: _OutcomeTopic, erased: Erased) -> defaultdict[int, set[int]]:
    """Return the raw offsets, by partition, of records that the sink has not committed yet."""
    done = await topic_reader.committed(settings, settings.sink_app_id, target.topic)
    begins = {
        p: max(begin, done.get(p, 0)) for p, (begin, _) in (await topic_reader.offsets(settings, target.topic)).items()
    }
    waiting: defaultdict[int, set[int]] = defaultdict(set)
    async with aclosing(_outcomes(settings, target, erased, begins)) as outcomes:
        async for outcome in outcomes:
            waiting[outcome.raw.partition].add(outcome.raw.offset)
    return waiting


async def _outcomes(
    settings: Settings, target: _OutcomeTopic, erased: Erased, begins: Mapping[int, int] | None = None
) -> AsyncGenerator[Outcome, None]:
    """Yield what the stream stage has written to the topic, but for what is about who was erased."""
    async with aclosing(topic_reader.records(settings, target.topic, begins)) as batches:
        async for _, records in batches:
            for record in records:
                if erased.is_about(record.value):
                    continue
                outcome = _outcome(record.value)
                if outcome.raw.topic == topics.RAW:  # otherwise a dead letter of the sink
                    yield outcome


async def _missing(
    settings: Settings,
    client: AsyncClient,
    target: _OutcomeTopic,
    erased: Erased,
    chunks: Sequence[Chunk],
    waiting: set[int],
    since: str,
) -> list[Discrepancy]:
    """Return what the chunks lack in ClickHouse and what is not in flight to it either."""
    if not chunks:
        return []
    found = await _rows(client, target, chunks, since)
    mismatched = arithmetic.mismatched(chunks, found, dead_letters=target.dead_letters)
    if not mismatched:
        return []
    ids = await _ids(settings, target, erased, mismatched)
    present = await _present(client, target, ids)
    lost = [offset for identity, offset in ids.items() if identity not in present and offset not in waiting]
    return arithmetic.group_offsets(chunks[0].partition, lost, target.why_missing)


async def _rows(
    client: AsyncClient, target: _OutcomeTopic, chunks: Sequence[Chunk], since: str
) -> dict[tuple[int, int], int]:
    """Count ClickHouse's rows of each chunk, by partition and first offset."""
    partition = chunks[0].partition
    parameters = {
        "bounds": [chunk.first for chunk in chunks],
        "topic": topics.RAW,
        "of_events": not target.dead_letters,
        "partition": partition,
        "first": chunks[0].first,
        "next": chunks[-1].next,
        "since": _clickhouse_time(since),
    }
    found = await client.query(_ROWS % target.view, parameters=parameters)
    return {(partition, int(first)): int(count) for first, count in found.result_rows}


async def _ids(settings: Settings, target: _OutcomeTopic, erased: Erased, chunks: Iterable[Chunk]) -> dict[str, int]:
    """Map the ids of the chunks' records on the topic to their raw offsets."""
    ranges = [(chunk.partition, range(chunk.first, chunk.next)) for chunk in chunks]
    found: dict[str, int] = {}
    async with aclosing(_outcomes(settings, target, erased)) as outcomes:
        async for outcome in outcomes:
            at = outcome.raw
            if any(at.partition == partition and at.offset in offsets for partition, offsets in ranges):
                found[getattr(outcome, target.id_column)] = at.offset
    return found


async def _present(client: AsyncClient, target: _OutcomeTopic, ids: Mapping[str, int]) -> set[str]:
    """Return the ids that ClickHouse has, from any raw offset: a repeat beyond the window counts too."""
    present: set[str] = set()
    wanted = list(ids)
    for at in range(0, len(wanted), _IDS_AT_ONCE):
        found = await client.query(
            f"SELECT toString({target.id_column}) FROM {target.view} WHERE {target.id_column} IN {{ids:Array(UUID)}}"  # noqa: S608
            + ("" if target.dead_letters else " UNION ALL SELECT JSONExtractString(payload, 'event_id')"
               " FROM telematics.dead_letters WHERE stage = 'sink'"),
            parameters={"ids": wanted[at : at + _IDS_AT_ONCE]},
        )  # fmt: skip
        present.update(str(row[0]) for row in found.result_rows)
    return present


async def _by_minute(
    client: AsyncClient, target: _OutcomeTopic, since: str, firsts: Sequence[int]
) -> Counter[MinuteAndType]:
    """Count the rows from each partition's first raw offset on: a replay's minute may be older than the summaries."""
    parameters: dict[str, Any] = {"since": _clickhouse_time(since), "topic": topics.RAW, "firsts": list(firsts)}
    found = await client.query(_BY_MINUTE % target.view, parameters=parameters)
    return Counter({(str(minute), str(event)): int(count) for minute, event, count in found.result_rows})


def _clickhouse_time(minute: str) -> str:
    """Format a minute for comparison with a time in ClickHouse."""
    return minute.replace("T", " ").replace("Z", ":00") if minute else "1970-01-01 00:00:00"
