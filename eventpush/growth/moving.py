"""Move the records of a topic to the partitions that their keys go to now, each exactly once.

    source partitions ──> chunk, by time ──> records by new partition ──> one transaction with the journal's offsets

The records of all source partitions are merged by time: a window takes rows whose times never go back.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from eventpush.growth.routing import Growth, route_rows
from eventpush.growth.steps import Journal, entry
from ingress.batching import partition_of
from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings
from schemas.topics import LATEST, WINDOW
from streams.state_restore import decode, encode
from streams.window import Rows, segment_us_of

_FETCH_MAX_BYTES = 4 * 2**20  # of one partition
_FETCH_WAIT_MS = 200
_ROWS = 8_192  # of one record of the window: 256 KiB


class Output(NamedTuple):
    """A record to write."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int


class Moved(NamedTuple):
    """What a transaction is to write: records by new partition, and how many rows or states they hold."""

    outputs: Mapping[int, Sequence[Output]]
    things: int


#: Records by source partition, in order.
Chunk = Mapping[int, Sequence[Any]]


class Kind(NamedTuple):
    """What is kept by partition: its topic, the time by which its records are merged, and where they go."""

    topic: str
    time_of: Callable[[Any], int]
    route: Callable[[Chunk, Growth], Moved]


def kinds(settings: Settings) -> tuple[Kind, ...]:
    """Return everything that is kept by partition and looked up by key."""
    segment_us = segment_us_of(settings.window_s * 1_000_000)
    return (
        Kind(WINDOW, lambda record: decode(record.value)[1], _window_route(segment_us)),
        Kind(LATEST, lambda record: int(record.timestamp), _state_route),
    )


def _window_route(segment_us: int) -> Callable[[Chunk, Growth], Moved]:
    """Return what moves the window's rows. Those of a segment get its latest time, as when a window is restored."""

    def route(chunk: Chunk, growth: Growth) -> Moved:
        outputs: defaultdict[int, list[Output]] = defaultdict(list)
        additions = [(*decode(record.value), source) for source, records in chunk.items() for record in records]
        additions.sort(key=lambda addition: addition[1])
        for _, group in groupby(additions, key=lambda addition: addition[1] // segment_us):
            of_segment = list(group)
            latest_us = of_segment[-1][1]
            for target, rows in _routed(((rows, source) for rows, _, source in of_segment), growth).items():
                outputs[target] += [
                    Output(b"", encode(rows[at : at + _ROWS], latest_us), latest_us // 1000)
                    for at in range(0, len(rows), _ROWS)
                ]
        return Moved(outputs, sum(len(rows) for rows, _, _ in additions))

    return route


def _routed(rows_of: Iterable[tuple[Rows, int]], growth: Growth) -> dict[int, Rows]:
    """Return the rows, which come with their source partitions, by new partition."""
    by_source: defaultdict[int, list[Rows]] = defaultdict(list)
    for rows, source in rows_of:
        by_source[source].append(rows)
    by_target: defaultdict[int, list[Rows]] = defaultdict(list)
    for source, parts in by_source.items():
        for target, rows in route_rows(np.concatenate(parts), source, growth).items():
            by_target[target].append(rows)
    return {target: np.concatenate(parts) for target, parts in by_target.items()}


def _state_route(chunk: Chunk, growth: Growth) -> Moved:
    """Move the records of a compacted topic by their keys; deleted keys too, since older records may lie before."""
    outputs: defaultdict[int, list[Output]] = defaultdict(list)
    for records in chunk.values():
        for record in records:
            target = partition_of(record.key or b"", growth.after)
            outputs[target].append(Output(record.key, record.value, record.timestamp))
    return Moved(outputs, sum(map(len, chunk.values())))


class Merged:
    """The records of several partitions, handed out by time; within a partition in order. Pure."""

    def __init__(self, partitions: Iterable[int], time_of: Callable[[Any], int]) -> None:
        self._waiting: dict[int, deque[tuple[int, Any]]] = {partition: deque() for partition in partitions}
        self._latest = dict.fromkeys(self._waiting, 0)
        self._time_of = time_of
        self._unread = set(self._waiting)

    @property
    def hungry(self) -> list[int]:
        """The partitions without which nothing can be handed out."""
        return [partition for partition in self._unread if not self._waiting[partition]]

    def add(self, partition: int, records: Iterable[Any]) -> None:
        """Take what was read next of a partition."""
        for record in records:
            self._latest[partition] = max(self._latest[partition], self._time_of(record))
            self._waiting[partition].append((self._latest[partition], record))

    def end(self, partition: int) -> None:
        """Note that nothing more comes of a partition."""
        self._unread.discard(partition)

    def take(self) -> dict[int, list[Any]]:
        """Hand out what nothing that is still to be read can precede; `hungry` must be empty."""
        until = min((self._latest[partition] for partition in self._unread), default=None)
        taken: dict[int, list[Any]] = {}
        for partition, waiting in self._waiting.items():
            of_partition = []
            while waiting and (until is None or waiting[0][0] <= until):
                of_partition.append(waiting.popleft()[1])
            if of_partition:
                taken[partition] = of_partition
        return taken

    def is_finished(self, partition: int) -> bool:
        """Return whether all of a partition was handed out."""
        return partition not in self._unread and not self._waiting[partition]


async def move(
    settings: Settings,
    producer: AIOKafkaProducer,
    group: str,
    kind: Kind,
    journal: Journal,
    on_moved: Callable[[int], None],
) -> None:
    """Move what the journal says is left of a topic; `on_moved` gets how many rows or states a transaction moved."""
    topic, growth = kind.topic, journal.growth
    left = {partition: move for partition, move in journal.of_topic(topic).items() if move[0] < move[1]}
    if not left:
        return
    async with AIOKafkaConsumer(
        **consumer_connection(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_MAX_BYTES,
        max_poll_records=None,
    ) as consumer:
        tps = {partition: TopicPartition(topic, partition) for partition in left}
        consumer.assign(list(tps.values()))
        for partition, (position, _) in left.items():
            consumer.seek(tps[partition], position)
        positions, merged = (
            {partition: position for partition, (position, _) in left.items()},
            Merged(left, kind.time_of),
        )
        while not all(map(merged.is_finished, left)):
            while hungry := merged.hungry:
                found = await consumer.getmany(*(tps[p] for p in hungry), timeout_ms=_FETCH_WAIT_MS)
                for tp, records in found.items():
                    merged.add(tp.partition, (r for r in records if r.offset < left[tp.partition][1]))
                for partition in hungry:
                    if await consumer.position(tps[partition]) >= left[partition][1]:
                        merged.end(partition)
            chunk = merged.take()
            for partition, records in chunk.items():
                positions[partition] = records[-1].offset + 1
            for partition in left:
                if merged.is_finished(partition):
                    positions[partition] = left[partition][1]
            moved = kind.route(chunk, growth)
            async with producer.transaction():
                await _write(producer, topic, moved.outputs)
                offsets = {tps[p]: entry(growth, at, left[p][1]) for p, at in positions.items()}
                await producer.send_offsets_to_transaction(offsets, group)
            on_moved(moved.things)


async def _write(producer: AIOKafkaProducer, topic: str, outputs: Mapping[int, Sequence[Output]]) -> None:
    """Write the records by partition; return when all are acknowledged."""
    sent = []
    for partition, records in outputs.items():
        builder = producer.create_batch()
        for key, value, timestamp_ms in records:
            if builder.append(timestamp=timestamp_ms, key=key, value=value) is None:
                sent.append(await producer.send_batch(builder, topic, partition=partition))
                builder = producer.create_batch()
                builder.append(timestamp=timestamp_ms, key=key, value=value)
        sent.append(await producer.send_batch(builder, topic, partition=partition))
    await asyncio.gather(*sent)
