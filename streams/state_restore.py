"""What a partition's new owner reads: where the last one stopped, and the window's changelog, in bulk.

A changelog record is 8 bytes stream time (µs, little endian) and the rows of one batch, 32 bytes each.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings
from schemas import account
from streams.latest_states import LatestStates
from streams.window import WORDS, DeduplicationWindow, Rows

log = structlog.get_logger()

#: What a changelog record adds to the window: rows, stream time in µs since the epoch, the record's offset.
Addition = tuple[Rows, int, int]

_TIME_BYTES = 8
_SUMMARIES_LOOKED_AT = 64  # at first: the last one is among them unless there were many aborted transactions


def encode(rows: Rows, stream_time_us: int) -> bytes:
    """Encode the changelog record of a batch."""
    return stream_time_us.to_bytes(_TIME_BYTES, "little") + rows.astype("<u8", copy=False).tobytes()


def decode(value: bytes) -> tuple[Rows, int]:
    """Decode the rows and stream time of a changelog record."""
    rows = np.frombuffer(value, "<u8", offset=_TIME_BYTES).reshape(-1, WORDS)
    return rows, int.from_bytes(value[:_TIME_BYTES], "little")


@asynccontextmanager
async def reader(settings: Settings, *partitions: TopicPartition) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer that reads committed records of these partitions and knows the stream stage's offsets."""
    consumer = AIOKafkaConsumer(
        **consumer_connection(settings),
        group_id=settings.streams_app_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 2**20,
    )
    await consumer.start()
    try:
        consumer.assign(list(partitions))
        yield consumer
    finally:
        await consumer.stop()


async def next_offset(
    consumer: AIOKafkaConsumer, committed: int, source: TopicPartition, accounts: TopicPartition
) -> int:
    """Return where to resume: after what was committed (0: nothing was), or at the earliest record there is.

    The group's offset and the account's last summary are of one transaction. Offsets have been seen to go back when a
    broker was killed and started again, by ten minutes at once and for all partitions; summaries have not.
    """
    accounted = await _accounted_offset(consumer, accounts)
    if 0 < committed < accounted:
        log.warning("the group's offset is behind the account: going on after the account", topic=source.topic,
                    partition=source.partition, committed=committed, accounted=accounted)  # fmt: skip
    if committed == accounted == 0:
        earliest = await consumer.beginning_offsets([source])
        return int(earliest[source])
    return max(committed, accounted)


async def _accounted_offset(consumer: AIOKafkaConsumer, accounts: TopicPartition) -> int:
    """Return the end of what the last committed summary of this partition covers; 0 where there is none."""
    begin = (await consumer.beginning_offsets([accounts]))[accounts]
    end = (await consumer.end_offsets([accounts]))[accounts]
    looked_at, first = _SUMMARIES_LOOKED_AT, end
    while first > begin:
        first = max(begin, end - looked_at)
        consumer.seek(accounts, first)
        found = [record async for records in _records_up_to(consumer, accounts, end) for record in records]
        if found:
            return account.decode(found[-1].value).next_offset
        looked_at *= 8
    return 0


async def _records_up_to(
    consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> AsyncIterator[Sequence[ConsumerRecord[bytes, bytes]]]:
    """Yield the committed records from the consumer's position to `end`, in lists."""
    while await consumer.position(partition) < end:
        for records in (await consumer.getmany(partition, timeout_ms=200)).values():
            yield records


async def restore(consumer: AIOKafkaConsumer, changelog: TopicPartition, window: DeduplicationWindow) -> None:
    """Read into the window what it does not hold yet; what is past the retention by then is dropped on the way.

    A window that was kept on disk, but not of this changelog, is emptied first.
    """
    begin = (await consumer.beginning_offsets([changelog]))[changelog]
    end = (await consumer.end_offsets([changelog]))[changelog]
    if begin <= window.changelog_offset < end and await _holds(consumer, changelog, window):
        begin = window.changelog_offset + 1
    else:
        window.drop()
    kept = len(window)
    consumer.seek(changelog, begin)
    async for records in _records_up_to(consumer, changelog, end):
        for rows, stream_time_us, offset in merge_by_segment(list(map(_decoded, records)), window.segment_us):
            window.add(rows, stream_time_us, offset)
            await asyncio.sleep(0)
    log.info("window restored", partition=changelog.partition, identities=len(window), kept=kept)


async def restore_states(consumer: AIOKafkaConsumer, latest: TopicPartition, states: LatestStates) -> None:
    """Read the states of devices that were published, the newest of each device last."""
    end = (await consumer.end_offsets([latest]))[latest]
    consumer.seek(latest, (await consumer.beginning_offsets([latest]))[latest])
    async for records in _records_up_to(consumer, latest, end):
        for record in records:
            states.restore((record.key or b"").decode(), record.value)
        await asyncio.sleep(0)
    log.info("states of devices restored", partition=latest.partition, devices=len(states))


async def _holds(consumer: AIOKafkaConsumer, changelog: TopicPartition, window: DeduplicationWindow) -> bool:
    """Return whether the changelog has at the window's offset a record of the window's time."""
    consumer.seek(changelog, window.changelog_offset)
    async for records in _records_up_to(consumer, changelog, window.changelog_offset + 1):
        _, stream_time_us, offset = _decoded(records[0])
        return (offset, stream_time_us) == (window.changelog_offset, window.stream_time_us)
    return False


def _decoded(record: ConsumerRecord[bytes, bytes]) -> Addition:
    rows, stream_time_us = decode(record.value or b"")
    return rows, stream_time_us, record.offset


def merge_by_segment(additions: Sequence[Addition], segment_us: int) -> Iterator[Addition]:
    """Merge the records of each segment into one addition, with the latest of their times and offsets.

    At low load a record holds few rows, and adding them costs as much as adding a thousand.
    """
    for _, group in groupby(additions, key=lambda addition: addition[1] // segment_us):
        of_span = list(group)
        rows, stream_times_us, offsets = zip(*of_span, strict=True)
        yield np.concatenate(rows), max(stream_times_us), offsets[-1]
