"""Group commit: many requests, one write to Kafka.

This is the ingress's one clever module. Each event is appended to the open batch of its partition; everybody in a
batch is told its outcome, by a call: waking a task for each would cost more than the rest of this module. A batch is
sent at once when the last send is at least `linger_ms` ago, so a lone event does not wait, and otherwise when that time
has passed, so that under load there is one write each few milliseconds whatever the number of requests. One write to a
broker is on its way at a time, with a batch of each of its partitions: a write costs the same for many events as for
few, and the order of a device's events is the order of their arrival.

Nobody waits longer than the timeout, and what has timed out has an unknown outcome: it may be in Kafka, so the
sender's repeat may be a duplicate, which the stream stage drops. A producer that failed once, in whatever way, is not
used again (a gap in an idempotent producer's sequence poisons its partition): a new one takes its place, and the old
one is given the rest of the timeout for what it still has on its way. While no connection can be made at all, events
are refused at once, so nothing piles up.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import msgspec
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from ingress.errors import Reason, RequestError, unavailable
from ingress.metrics_buffer import MetricsBuffer
from runtime.adapters.aiokafka import compression_type
from runtime.kafka.connection import connection as kafka_connection
from runtime.platform import metrics
from runtime.platform.settings import Settings
from schemas import topics

log = structlog.get_logger(__name__)

_BATCH_MAX_BYTES = 524_288  # with one event on top still below the broker's 1 MiB for a batch
_CONNECT_TIMEOUT_S = 5.0
_CONNECT_PAUSE_S = (0.1, 1.0)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event as it goes to the raw topic."""

    key: bytes | None
    value: bytes
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


#: Is told what came of the records: None when all of them are safe, else why that is not known of every one.
Settled = Callable[[RequestError | None], None]


class Publisher(Protocol):
    """Where accepted events go."""

    held_bytes: int  # not acknowledged yet

    async def start(self) -> None:
        """Begins: tries to connect once, and goes on trying."""

    async def stop(self) -> None:
        """Sends what is open, waits for what is on its way (bounded), closes."""

    def publish(self, records: Sequence[Record], settled: Settled) -> None:
        """Takes the records and calls `settled` once, later; raises `RequestError` (503) when it takes none of them."""

    async def unreachable(self) -> str | None:
        """None when a record would be taken now, else what is in the way."""


class _Batch:
    __slots__ = ("builder", "bytes", "deadline", "link", "partition", "waiting")

    def __init__(self, builder: Any, partition: int) -> None:
        self.builder = builder
        self.partition = partition
        self.waiting: list[Settled] = []
        self.bytes = 0
        self.deadline: asyncio.TimerHandle | None = None
        self.link: _Link | None = None  # that it was sent on

    def append(self, record: Record) -> Any:
        """Takes the record; None when there is no room for it."""
        return self.builder.append(
            timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=record.headers
        )

    def settle(self, reason: Reason | None) -> None:
        """Tells the outcome to who has not been told one yet."""
        if self.deadline is not None:
            self.deadline.cancel()
        failure = unavailable(reason, "the event could not be stored in time: send it again") if reason else None
        waiting, self.waiting = self.waiting, []
        for settled in waiting:
            try:
                settled(failure)
            except Exception as error:  # the others must hear of it all the same
                log.error("a fault while telling an outcome", error=type(error).__name__, exc_info=error)


class _Whole:
    """Puts the outcomes of several batches together: the first failure is the outcome, or all are safe."""

    def __init__(self, batches: set[_Batch], settled: Settled) -> None:
        self._left = len(batches)
        self._settled: Settled | None = settled
        for batch in batches:
            batch.waiting.append(self)

    def __call__(self, failure: RequestError | None) -> None:
        self._left -= 1
        if self._settled is not None and (failure is not None or self._left == 0):
            settled, self._settled = self._settled, None
            settled(failure)


class _Link:
    """One producer's life, from its connection to its first failure."""

    def __init__(self, producer: Any, partitions: int) -> None:
        self.producer = producer
        self.partitions = partitions
        self.sending: set[int] = set()  # partitions with a batch on its way
        self.idle = asyncio.Event()  # there is none
        self.idle.set()
        self.broken = asyncio.Event()

    def leader(self, partition: int) -> int | None:
        """The broker that writes of this partition go to."""
        leader: int | None = self.producer.client.cluster.leader_for_partition(TopicPartition(topics.RAW, partition))
        return leader


class KafkaPublisher:
    """The publisher of the real world; see the module's docstring."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._linger_s = settings.ingress_linger_ms / 1000
        self._timeout_s = settings.ingress_publish_timeout_ms / 1000
        self._max_bytes = settings.ingress_inflight_max_bytes
        self._loop = asyncio.get_running_loop()
        self._tally = MetricsBuffer()
        self._link: _Link | None = None
        self._away: str | None = "not connected yet"
        self._away_since = time.monotonic()
        self._told = False  # that Kafka is away
        self._tried = asyncio.Event()
        self._lanes: list[deque[_Batch]] = []
        self._new_builder: Any = None
        self.held_bytes = 0  # by batches that are open or on their way, answered or not
        self._flush_handle: asyncio.Handle | None = None
        self._last_flush = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the way of an event -------------------------------------------------------------------------------------

    def publish(self, records: Sequence[Record], settled: Settled) -> None:
        """See `Publisher`."""
        if self._away is not None:
            raise unavailable(Reason.KAFKA_AWAY, "events cannot be stored at the moment: send it again")
        size = len(records[0].value) if len(records) == 1 else sum(len(record.value) for record in records)
        if self.held_bytes + size > self._max_bytes:
            raise unavailable(Reason.OVERLOADED, "too many events are waiting to be stored: send it again")
        if len(records) == 1:
            self._append(records[0]).waiting.append(settled)
        else:
            _Whole({self._append(record) for record in records}, settled)

    def _append(self, record: Record) -> _Batch:
        # Without an IMEI the bytes choose the partition: a repeat comes to where the first one is remembered.
        partition = _partition_of(record.value if record.key is None else record.key, len(self._lanes))
        lane = self._lanes[partition]
        batch = lane[-1] if lane else self._open(partition)
        added = batch.append(record)
        if added is None:  # full
            batch = self._open(partition)
            added = batch.append(record)
        batch.bytes += added.size
        self.held_bytes += added.size
        return batch

    def _open(self, partition: int) -> _Batch:
        batch = _Batch(self._new_builder(), partition)
        batch.deadline = self._loop.call_later(self._timeout_s, self._too_late, batch)
        self._lanes[partition].append(batch)
        self._flush_soon()
        return batch

    def _flush_soon(self) -> None:
        if self._flush_handle is None:
            wait_s = self._last_flush + self._linger_s - self._loop.time()
            self._flush_handle = (
                self._loop.call_later(wait_s, self._flush) if wait_s > 0 else self._loop.call_soon(self._flush)
            )

    def _flush(self) -> None:
        self._flush_handle = None
        link = self._link
        if link is None:
            return
        self._last_flush = self._loop.time()
        busy = {link.leader(partition) for partition in link.sending}
        batches = [lane[0] for partition, lane in enumerate(self._lanes) if lane and link.leader(partition) not in busy]
        if batches:
            link.idle.clear()
            for batch in batches:
                self._lanes[batch.partition].popleft()
                batch.link = link
                link.sending.add(batch.partition)
            self._spawn(self._write(link, batches))

    async def _write(self, link: _Link, batches: list[_Batch]) -> None:
        """Hands the batches to aiokafka's producer, which puts what goes to one broker into one request."""
        for batch in batches:
            try:
                sent = await link.producer.send_batch(batch.builder, topics.RAW, partition=batch.partition)
            except Exception as error:
                sent = self._loop.create_future()
                sent.set_exception(error)
            sent.add_done_callback(partial(self._written, link, batch))

    def _written(self, link: _Link, batch: _Batch, sent: asyncio.Future[Any]) -> None:
        self.held_bytes -= batch.bytes
        link.sending.remove(batch.partition)
        if not link.sending:
            link.idle.set()
        if any(self._lanes):
            self._flush_soon()
        error = sent.exception()
        if error is None:
            self._tally.stored(batch.builder.record_count(), batch.bytes)
            batch.settle(None)
        else:
            self._distrust(link, f"{type(error).__name__}: {error}")
            batch.settle(Reason.KAFKA_AWAY)

    def _too_late(self, batch: _Batch) -> None:
        batch.settle(Reason.KAFKA_AWAY)
        if batch.link is None:  # not sent yet, and now it never will be
            self._lanes[batch.partition].remove(batch)
            self.held_bytes -= batch.bytes
        else:
            self._distrust(batch.link, f"no acknowledgement within {self._timeout_s:g} s")

    def _distrust(self, link: _Link, why: str) -> None:
        if not link.broken.is_set():
            link.broken.set()
            log.warning("a write to Kafka failed; connecting anew", why=why)

    # --- the connection ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Publisher`."""
        kafka_connection(self._settings)  # what a person must mend is said now
        self._keeper = asyncio.create_task(self._keep_connected())
        await self._tried.wait()

    async def _keep_connected(self) -> None:
        pause_s, longest_s = _CONNECT_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    link = await self._connect()
            except Exception as error:
                self._is_away(str(error) or type(error).__name__)
                self._tried.set()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, longest_s)
                continue
            pause_s, _ = _CONNECT_PAUSE_S
            self._is_back(link)
            self._tried.set()
            await link.broken.wait()
            self._link = None
            metrics.INGRESS_KAFKA_UP.metric.set(0)
            self._spawn(self._discard(link))

    async def _connect(self) -> _Link:
        producer = AIOKafkaProducer(
            **kafka_connection(self._settings),
            client_id="eventpush-ingress",
            acks="all",
            enable_idempotence=True,
            compression_type=compression_type(self._settings.ingress_compression),
            max_batch_size=_BATCH_MAX_BYTES,
            request_timeout_ms=self._settings.ingress_publish_timeout_ms,
        )
        try:
            await producer.start()
            return _Link(producer, len(await producer.partitions_for(topics.RAW)))
        except BaseException:
            await _close(producer)
            raise

    def _is_away(self, why: str) -> None:
        if not self._told:
            log.warning("Kafka cannot be reached; events are refused until it can", why=why)
            self._told = True
        if self._away is None:
            self._away_since = time.monotonic()
        self._away = why
        for lane in self._lanes:
            while lane:
                batch = lane.popleft()
                self.held_bytes -= batch.bytes
                batch.settle(Reason.KAFKA_AWAY)

    def _is_back(self, link: _Link) -> None:
        metrics.INGRESS_PRODUCERS.metric.inc()
        metrics.INGRESS_KAFKA_UP.metric.set(1)
        if self._away is not None:
            away_s = round(time.monotonic() - self._away_since, 1)
            log.info("connected to Kafka", partitions=link.partitions, away_s=away_s)
        if not self._lanes:
            self._lanes = [deque() for _ in range(link.partitions)]
        self._new_builder = link.producer.create_batch
        self._link = link
        self._away = None
        self._told = False
        self._flush_soon()

    async def _discard(self, link: _Link) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await link.idle.wait()
        await _close(link.producer)

    async def unreachable(self) -> str | None:
        """See `Publisher`: asks a broker now, and every partition must have a leader."""
        link = self._link
        if link is None:
            return f"Kafka cannot be reached: {self._away or 'connecting anew'}"
        client = link.producer.client
        if not await client.force_metadata_update():
            return "Kafka does not answer"
        leaders = len(client.cluster.available_partitions_for_topic(topics.RAW) or ())
        if leaders < link.partitions:
            return f"{link.partitions - leaders} of {link.partitions} partitions of {topics.RAW} have no leader"
        return None

    async def stop(self) -> None:
        """See `Publisher`."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        self._flush()
        waiting = [self._outcome(batch) for lane in self._lanes for batch in lane]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout_s)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            self._spawn(self._discard(self._link))
            self._link = None
        self._away = "stopped"
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _outcome(self, batch: _Batch) -> asyncio.Future[RequestError | None]:
        outcome: asyncio.Future[RequestError | None] = self._loop.create_future()
        batch.waiting.append(outcome.set_result)
        return outcome

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@lru_cache(maxsize=65_536)
def _partition_of(key: bytes, partitions: int) -> int:
    """Kafka's default partitioner: what Java's and aiokafka's producers choose for the key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


async def _close(producer: Any) -> None:
    """Ends a producer without waiting for what it may never deliver."""
    producer._message_accumulator.fail_all(KafkaError("given up"))
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await producer.client.close()
            await producer.stop()
    except Exception as error:
        log.debug("closing a producer failed", why=str(error))
