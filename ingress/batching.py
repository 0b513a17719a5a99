"""Group commit, the pure part: open batches by partition, and when they are due. Time is passed in.

A batch is due at once when the last flush is at least `linger_s` ago, so a lone event does not wait, and otherwise
when that time has passed: under load there is one write every few milliseconds, whatever the number of requests.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from aiokafka.partitioner import murmur2

from ingress.delivery import DeliveryCallback
from ingress.errors import RequestError

log = structlog.get_logger(__name__)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event as it goes to the raw topic."""

    key: bytes | None
    value: bytes
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


class Batch:
    """Records of one partition that go to Kafka in one write, and the callbacks that wait for it."""

    __slots__ = ("builder", "callbacks", "deadline", "partition", "session", "size_bytes")

    def __init__(self, builder: Any, partition: int) -> None:
        self.builder = builder  # aiokafka's BatchBuilder
        self.partition = partition
        self.callbacks: list[DeliveryCallback] = []
        self.size_bytes = 0
        self.deadline: asyncio.TimerHandle | None = None
        self.session: Any = None  # the `ProducerSession` it was sent on

    def append(self, record: Record) -> int:
        """Append the record and return its size in bytes; 0 when there is no room for it."""
        added = self.builder.append(
            timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=record.headers
        )
        if added is None:
            return 0
        self.size_bytes += added.size
        return int(added.size)

    def settle(self, failure: RequestError | None) -> None:
        """Call every pending callback with the outcome."""
        if self.deadline is not None:
            self.deadline.cancel()
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            try:
                callback(failure)
            except Exception as error:  # must not keep the outcome from the others
                log.error("delivery callback failed", error=type(error).__name__, exc_info=error)


class Batcher:
    """Open batches by partition; `opened` is called with every new one."""

    def __init__(self, partitions: int, linger_s: float, opened: Callable[[Batch], None]) -> None:
        self.new_builder: Callable[[], Any] = lambda: None  # of the current producer
        self._linger_s = linger_s
        self._opened = opened
        self._queues: list[deque[Batch]] = [deque() for _ in range(partitions)]
        self._next_flush_s = 0.0

    def __bool__(self) -> bool:
        return any(self._queues)

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self._queues)

    @property
    def batches(self) -> list[Batch]:
        """All batches that wait to be sent."""
        return [batch for queue in self._queues for batch in queue]

    def append(self, record: Record) -> tuple[Batch, int]:
        """Append the record to the open batch of its partition; return that batch and the record's size in bytes.

        Without a key (no usable IMEI) the value chooses the partition, so a repeat reaches the partition that remembers
        the first one.
        """
        partition = partition_of(record.value if record.key is None else record.key, len(self._queues))
        queue = self._queues[partition]
        batch = queue[-1] if queue else self._open(partition)
        size_bytes = batch.append(record)
        if not size_bytes:  # full
            batch = self._open(partition)
            size_bytes = batch.append(record)
        return batch, size_bytes

    def _open(self, partition: int) -> Batch:
        batch = Batch(self.new_builder(), partition)
        self._queues[partition].append(batch)
        self._opened(batch)
        return batch

    def due_in_s(self, now_s: float) -> float:
        """Return how long to wait until the next flush; 0 or less: it is due."""
        return self._next_flush_s - now_s

    def take_due(self, now_s: float, may_send: Callable[[int], bool]) -> list[Batch]:
        """Take the oldest batch of every partition that may be sent to now."""
        self._next_flush_s = now_s + self._linger_s
        return [queue.popleft() for partition, queue in enumerate(self._queues) if queue and may_send(partition)]

    def remove(self, batch: Batch) -> None:
        """Remove a batch that waits to be sent."""
        self._queues[batch.partition].remove(batch)

    def clear(self) -> Sequence[Batch]:
        """Take all batches."""
        batches = self.batches
        for queue in self._queues:
            queue.clear()
        return batches


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Choose the partition as Kafka's default partitioner does, in Java's producer and in aiokafka's."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
