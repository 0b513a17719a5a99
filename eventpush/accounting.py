"""Gathering the account: summaries and offsets from Kafka, counts from ClickHouse, and the look at what differs."""

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush import account, kafka
from eventpush.account import Chunk, Coverage, Key, Line, Remainder
from eventpush.clickhouse import connected
from runtime.errors import Problem
from runtime.settings import Settings
from schemas import account as summaries
from schemas import clickhouse, topics
from schemas.account import BatchAccount
from schemas.events import RawPosition

_IDS_AT_ONCE = 5_000


@dataclass(frozen=True)
class _Target:
    """Where outcomes go: a topic, and the table that its records become rows of."""

    topic: str
    view: str
    id_column: str
    dead_letters: bool
    what: str


_EVENTS = _Target(topics.EVENTS, clickhouse.EVENTS.view, "event_id", False, "unique but not in telematics.events")
_DEAD = _Target(
    topics.DEAD_LETTER,
    clickhouse.DEAD_LETTERS.view,
    "dead_letter_id",
    True,
    "dead-lettered but not in telematics.dead_letters",
)

# Of the sink's own dead letters the position is that on the events topic; the raw one is in the payload.
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
FROM %s WHERE received_at >= {since:String} AND raw.topic = {topic:String} GROUP BY ALL
"""


class Outcome(msgspec.Struct, gc=False):
    """What the account needs of a record on either topic."""

    raw: RawPosition
    event_id: str | None = None
    dead_letter_id: str | None = None


_outcome = msgspec.json.Decoder(Outcome).decode


@dataclass
class Account:
    """All of it."""

    coverages: list[Coverage] = field(default_factory=list)
    lines: dict[Key, Line] = field(default_factory=dict)
    to_clickhouse: int = 0  # records that the sink has yet to store
    remainders: list[Remainder] = field(default_factory=list)


async def gather(settings: Settings) -> Account:
    """Read everything and add it up; raise `Problem` if Kafka or ClickHouse is unreachable."""
    # The order matters: what is read later may be ahead of what was read before, never behind.
    batches, began = await _summaries(settings), await kafka.offsets(settings, topics.ACCOUNT)
    raw = await kafka.offsets(settings, topics.RAW)
    result = Account()
    for partition, (begin, end) in raw.items():
        complete = began.get(partition, (0, 0))[0] == 0
        found = account.coverage(partition, batches[partition], begin, end, complete=complete)
        result.coverages.append(found)
        result.remainders += found.remainders
    since = min((count.minute for of in batches.values() for batch in of for count in batch.counts), default="")
    async with connected(settings) as client:
        for target in (_EVENTS, _DEAD):
            waiting = await _waiting(settings, target)
            result.to_clickhouse += sum(len(offsets) for offsets in waiting.values())
            for partition, of in batches.items():
                chunks = account.chunks(partition, of)
                result.remainders += await _missing(settings, client, target, chunks, waiting[partition], since)
        stored, dead = [await _by_minute(client, target, since) for target in (_EVENTS, _DEAD)]
    result.lines = account.lines((batch for of in batches.values() for batch in of), stored, dead)
    return result


async def _summaries(settings: Settings) -> dict[int, list[BatchAccount]]:
    """Return the stream stage's summaries, by partition."""
    found: defaultdict[int, list[BatchAccount]] = defaultdict(list)
    async with aclosing(kafka.records(settings, topics.ACCOUNT)) as batches:
        async for partition, records in batches:
            for record in records:
                found[partition].append(_summary(partition, record))
    return found


def _summary(partition: int, record: Any) -> BatchAccount:
    try:
        return summaries.decode(record.value)
    except msgspec.DecodeError as error:
        raise Problem(
            f"{topics.ACCOUNT} holds no summary in partition {partition} at offset {record.offset} ({error})",
            "only the stream stage may write to that topic",
        ) from None


async def _waiting(settings: Settings, target: _Target) -> defaultdict[int, set[int]]:
    """Return the raw offsets, by partition, of the records that the sink has not committed yet."""
    done = await kafka.committed(settings, settings.sink_app_id, target.topic)
    begins = {p: max(begin, done.get(p, 0)) for p, (begin, _) in (await kafka.offsets(settings, target.topic)).items()}
    waiting: defaultdict[int, set[int]] = defaultdict(set)
    async with aclosing(_outcomes(settings, target, begins)) as outcomes:
        async for outcome in outcomes:
            waiting[outcome.raw.partition].add(outcome.raw.offset)
    return waiting


async def _outcomes(
    settings: Settings, target: _Target, begins: Mapping[int, int] | None = None
) -> AsyncGenerator[Outcome, None]:
    """Read what the stream stage has put on the topic."""
    async with aclosing(kafka.records(settings, target.topic, begins)) as batches:
        async for _, records in batches:
            for record in records:
                outcome = _outcome(record.value)
                if outcome.raw.topic == topics.RAW:  # else the sink's own dead letter
                    yield outcome


async def _missing(
    settings: Settings,
    client: AsyncClient,
    target: _Target,
    chunks: Sequence[Chunk],
    waiting: set[int],
    since: str,
) -> list[Remainder]:
    """Return the part of the chunks that is neither in a table nor on its way to one."""
    if not chunks:
        return []
    found = await _rows(client, target, chunks, since)
    differing = account.differing(chunks, found, dead_letters=target.dead_letters)
    if not differing:
        return []
    ids = await _ids(settings, target, differing)
    there = await _present(client, target, ids)
    lost = [offset for identity, offset in ids.items() if identity not in there and offset not in waiting]
    return account.grouped(chunks[0].partition, lost, target.what)


async def _rows(
    client: AsyncClient, target: _Target, chunks: Sequence[Chunk], since: str
) -> dict[tuple[int, int], int]:
    """How many rows ClickHouse has of each chunk, by partition and first offset."""
    partition = chunks[0].partition
    parameters = {
        "bounds": [chunk.first for chunk in chunks],
        "topic": topics.RAW,
        "of_events": not target.dead_letters,
        "partition": partition,
        "first": chunks[0].first,
        "next": chunks[-1].next,
        "since": _clock(since),
    }
    found = await client.query(_ROWS % target.view, parameters=parameters)
    return {(partition, int(first)): int(count) for first, count in found.result_rows}


async def _ids(settings: Settings, target: _Target, chunks: Iterable[Chunk]) -> dict[str, int]:
    """Identity → raw offset of what the topic holds of the chunks."""
    ranges = [(chunk.partition, range(chunk.first, chunk.next)) for chunk in chunks]
    found: dict[str, int] = {}
    async with aclosing(_outcomes(settings, target)) as outcomes:
        async for outcome in outcomes:
            at = outcome.raw
            if any(at.partition == partition and at.offset in offsets for partition, offsets in ranges):
                found[getattr(outcome, target.id_column)] = at.offset
    return found


async def _present(client: AsyncClient, target: _Target, ids: Mapping[str, int]) -> set[str]:
    """Those of the identities that ClickHouse has, whatever offset they came from: a repeat after the window, too."""
    there: set[str] = set()
    wanted = list(ids)
    for at in range(0, len(wanted), _IDS_AT_ONCE):
        found = await client.query(
            f"SELECT toString({target.id_column}) FROM {target.view} WHERE {target.id_column} IN {{ids:Array(UUID)}}"  # noqa: S608
            + ("" if target.dead_letters else " UNION ALL SELECT JSONExtractString(payload, 'event_id')"
               " FROM telematics.dead_letters WHERE stage = 'sink'"),
            parameters={"ids": wanted[at : at + _IDS_AT_ONCE]},
        )  # fmt: skip
        there.update(str(row[0]) for row in found.result_rows)
    return there


async def _by_minute(client: AsyncClient, target: _Target, since: str) -> Counter[Key]:
    parameters: dict[str, Any] = {"since": _clock(since), "topic": topics.RAW}
    found = await client.query(_BY_MINUTE % target.view, parameters=parameters)
    return Counter({(str(minute), str(event)): int(count) for minute, event, count in found.result_rows})


def _clock(minute: str) -> str:
    """Format a minute for comparison with a time in ClickHouse."""
    return minute.replace("T", " ").replace("Z", ":00") if minute else "1970-01-01 00:00:00"
