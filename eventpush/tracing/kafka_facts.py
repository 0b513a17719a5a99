"""Find an event in Kafka: raw records by time, outputs by their raw offset, how far each stage is."""

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from eventpush.topic_reader import committed, consumer_of, records
from eventpush.tracing.facts import Arrival, Position, RegistryEntry
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import account, topics
from schemas.event import RawPosition
from schemas.json_text import decoder_of
from schemas.replay import replay_of

_READ_TIMEOUT_MS = 1_000
_DISORDER_MS = (
    60_000  # how far apart two neighbours' timestamps may be: requests are batched, clocks of processes differ
)
_SCANNED = 500  # records read one by one at the end of a binary search
_DIGITS = 18


class _Output(msgspec.Struct):
    raw: RawPosition


_output: Callable[[bytes], _Output] = decoder_of(_Output)


def arrival_of(record: Any) -> Arrival:
    """Read a raw record's headers; without them, its timestamp is its arrival."""
    headers = {name: value.decode("ascii", "replace") for name, value in record.headers if value is not None}
    arrival = headers.get(topics.HEADER_ARRIVAL_US, "")
    return Arrival(
        position=Position(record.topic, record.partition, record.offset),
        received_us=int(arrival) if arrival.isdigit() and len(arrival) <= _DIGITS else max(record.timestamp, 0) * 1000,
        receipt_id=headers.get(topics.HEADER_RECEIPT_ID),
        sender=headers.get(topics.HEADER_SENDER),
        payload=record.value or b"",
        replay=replay_of(record.headers),
    )


async def arrivals(
    settings: Settings, since_us: int, until_us: int, matches: Callable[[Arrival], bool]
) -> list[Arrival]:
    """Return matching raw records that were written between two times (µs since the epoch)."""
    found: list[Arrival] = []
    async with consumer_of(settings, topics.RAW) as (consumer, partitions):
        starts = await consumer.offsets_for_times({tp: max(0, since_us // 1000) for tp in partitions})
        ends = await consumer.end_offsets(partitions)
        for tp in partitions:
            consumer.seek(tp, ends[tp] if starts[tp] is None else starts[tp].offset)
        unread = set(partitions)
        while unread := {tp for tp in unread if await consumer.position(tp) < ends[tp]}:
            for tp, batch in (await consumer.getmany(*unread, timeout_ms=_READ_TIMEOUT_MS)).items():
                found += [arrival for arrival in map(arrival_of, batch) if matches(arrival)]
                if batch[-1].timestamp > until_us // 1000 + _DISORDER_MS:
                    unread.discard(tp)
    return found


async def arrivals_at(settings: Settings, positions: list[Position]) -> list[Arrival]:
    """Return the raw records at these positions, as far as Kafka still has them."""
    found: list[Arrival] = []
    async with consumer_of(settings, topics.RAW) as (consumer, partitions):
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for position in positions:
            tp = TopicPartition(topics.RAW, position.partition)
            if tp in begins and begins[tp] <= position.offset < ends[tp]:
                record = await _first_from(consumer, tp, position.offset, ends[tp])
                if record is not None and record.offset == position.offset:
                    found.append(arrival_of(record))
    return found


async def outputs(settings: Settings, raw: Position, type_topic: str | None) -> list[Position]:
    """Return what the stream stage wrote for a raw record: on the events topic, the type's, or the dead letters'."""
    found = []
    for topic in filter(None, (topics.EVENTS, type_topic, topics.DEAD_LETTER)):
        with contextlib.suppress(OperatorError):  # a type's topic may not exist yet
            record = await _last_at_or_before(settings, topic, raw.partition, _raw_offset, raw.offset)
            if record is not None and _raw_offset(record.value) == raw.offset:
                found.append(Position(topic, raw.partition, record.offset))
    return found


async def batch_of(settings: Settings, raw: Position) -> account.BatchAccount | None:
    """Return the summary of the batch that holds a raw record, unless it was deleted or is yet to come."""
    record = await _last_at_or_before(settings, topics.ACCOUNT, raw.partition, _first_offset, raw.offset)
    batch = None if record is None else account.decode(record.value)
    return batch if batch is not None and batch.first_offset <= raw.offset < batch.next_offset else None


async def behind(settings: Settings, group: str, position: Position) -> int:
    """Return how many records a group has yet to process up to and including this one; 0 if it is done."""
    done = (await committed(settings, group, position.topic)).get(position.partition, 0)
    return max(0, position.offset + 1 - done)


async def registry_entry(settings: Settings, imei: str) -> RegistryEntry | None:
    """Return the newest record of a device in the registry."""
    newest: RegistryEntry | None = None
    async with contextlib.aclosing(records(settings, topics.DEVICES)) as batches:
        async for partition, batch in batches:
            for record in batch:
                if record.key == imei.encode() and record.value is not None:
                    newest = RegistryEntry(Position(topics.DEVICES, partition, record.offset), record.timestamp * 1000)
    return newest


def _raw_offset(value: bytes) -> int | None:
    raw = _output(value).raw
    return raw.offset if raw.topic == topics.RAW else None  # otherwise a dead letter of the sink


def _first_offset(value: bytes) -> int:
    return account.decode(value).first_offset


async def _last_at_or_before(
    settings: Settings, topic: str, partition: int, key: Callable[[bytes], int | None], wanted: int
) -> Any:
    """Return the last record whose key is at most `wanted`: a binary search, as keys rise along a partition."""
    async with consumer_of(settings, topic) as (consumer, partitions):
        tp = TopicPartition(topic, partition)
        consumer.pause(*(other for other in partitions if other != tp))
        low, high = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
        while high - low > _SCANNED:
            middle = (low + high) // 2
            record = await _first_from(consumer, tp, middle, high, lambda value: key(value) is not None)
            if record is None or (key(record.value) or 0) > wanted:
                high = middle
            else:
                low = record.offset
        return await _scan(consumer, tp, low, high, key, wanted)


async def _scan(
    consumer: AIOKafkaConsumer,
    tp: TopicPartition,
    low: int,
    high: int,
    key: Callable[[bytes], int | None],
    wanted: int,
) -> Any:
    consumer.seek(tp, low)
    found = None
    while await consumer.position(tp) < high:
        for record in (await consumer.getmany(tp, timeout_ms=_READ_TIMEOUT_MS)).get(tp, ()):
            at = key(record.value)
            if at is not None and at <= wanted and record.offset < high:
                found = record
    return found


async def _first_from(
    consumer: AIOKafkaConsumer,
    tp: TopicPartition,
    offset: int,
    end: int,
    usable: Callable[[bytes], bool] = lambda _: True,
) -> Any:
    """Return the first usable record from `offset` on and before `end`; offsets may have gaps (transactions)."""
    consumer.seek(tp, offset)
    while await consumer.position(tp) < end:
        for record in (await consumer.getmany(tp, timeout_ms=_READ_TIMEOUT_MS)).get(tp, ()):
            if record.offset >= end:
                return None
            if usable(record.value):
                return record
    return None
