"""Faust, fed by the batch: what one fetch returned for one partition is one stream event.

This is the clever module. Faust's own path makes four tasks, a lock and a dozen objects for every message, which was
measured at 20 times the cost of processing an event. Here the records of a fetch stay a list up to the agent:

    aiokafka fetcher ── list of records ──> BatchConsumer ── Message(value=Batch) ──> conductor ──> agent

What differs from Faust's defaults, and why:
- the consumer reads `read_committed` (Faust does so only in its `exactly_once` mode, which is not exact);
- a partition that has a batch under way is not fetched from until `resume`, so memory is bounded by one batch each;
- a batch says from which offset on it is complete, so that one that was dropped on the way is missed by the tasks;
- nothing is handed on before a rebalance is over: Faust opens the flow early and empties the streams' queues once more
  after that, and a partition whose batch was in one would wait for its resume for ever;
- records keep the shape in which aiokafka's C parser made them (`offset`, `timestamp`, `key`, `value`, `headers`);
- nothing is acknowledged through Faust: whoever processes a batch commits its offsets.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, NoReturn

import aiokafka
import faust
import structlog
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import Message
from mode.threads import WorkerThread

from runtime.adapters.aiokafka import Fetched, as_parsed, max_poll_records, reaches_broker, require_installed
from runtime.consumer.batch import Batch
from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings

log = structlog.get_logger()

#: What this module uses and Faust does not document: class -> names (see `runtime.adapters.aiokafka.PRIVATE_NAMES`).
PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "faust.transport.drivers.aiokafka:Consumer": (
        "_buffered_partitions", "_drain_messages", "_get_active_partitions", "_new_consumer_thread", "_read_offset",
        "_stopped", "_thread",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread": (
        "_assignor", "_create_worker_consumer", "_ensure_consumer", "_fetch_records",
    ),
    "faust.transport.consumer:Fetcher": ("_stopped",),
    "faust.app.base:App": ("_crashed", "_new_transport"),
    "faust.tables.base:Collection": ("_new_store",),
}  # fmt: skip

#: How long partitions without a batch wait for those with one: they are fetched from together, and processed together.
_TOGETHER_S = 0.05
_IDLE_WAIT_S = 1.0
_FETCH_GRACE_S = 2.0
_THREAD_STOP_S = 2.0


class _DaemonThread(WorkerThread):
    """A stop that comes while the thread is starting misses it: it must not keep the process from ending.

    Nor must a task in the thread that does not end when it is cancelled.
    """

    def __init__(self, service: Any, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True

    def stop(self) -> None:
        """Wait for the thread's end, but not for ever: by now its consumer has left the group."""
        self.is_stopped.wait(_THREAD_STOP_S)


class Fetch(NamedTuple):
    """When the broker answers a fetch: after `wait_ms`, or as soon as it has `min_bytes`.

    aiokafka has one fetch a broker under way, and a partition that is not in it has to wait until it returns.
    """

    wait_ms: int = 50
    min_bytes: int = 1


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread of an aiokafka consumer with our connection settings, `read_committed` and quick fetches."""

    Worker = _DaemonThread

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:  # noqa: ARG002
        require_installed()
        app, settings = self.app, self.app.settings
        self._assignor = app.assignor if app.tables.changelog_topics else RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            **consumer_connection(settings),
            client_id=app.conf.id,
            group_id=app.conf.id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            value_deserializer=as_parsed,
            max_poll_records=app.max_poll_records,
            max_partition_fetch_bytes=2**20,
            fetch_max_wait_ms=app.fetch.wait_ms,
            fetch_min_bytes=app.fetch.min_bytes,
            session_timeout_ms=settings.session_timeout_s * 1000,
            heartbeat_interval_ms=min(2000, settings.session_timeout_s * 1000 // 3),
            rebalance_timeout_ms=settings.session_timeout_s * 1000,
            max_poll_interval_ms=app.settings.stall_timeout_s * 1000 * 5,
            metadata_max_age_ms=60_000,
        )


class BatchConsumer(driver.Consumer):
    """Deliver one message per partition and fetch, its value a `Batch`; wait for `resume` before the next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.polls = 0  # of the loop that fetches
        self._released = asyncio.Event()  # since the latest wait for it, a partition's batch was done
        self.undelivered: set[TP] = set()  # partitions whose batch of the latest fetch is not handed on yet

    def _new_consumer_thread(self) -> _ConsumerThread:
        # asyncio's own loop: with uvloop's, the thread called a null pointer while it stopped, in one stop of hundreds.
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon, thread_loop=asyncio.new_event_loop())

    def resume(self, tp: TP) -> None:
        """Fetch this partition again: its batch is done."""
        self.on_buffer_drop(tp)
        self._released.set()

    def pause_fetching(self, tps: set[TP]) -> None:
        """Do not even prefetch from these partitions until the next rebalance."""
        self._thread._ensure_consumer().pause(*(aiokafka.TopicPartition(*tp) for tp in tps))

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Report changelogs as empty to Faust, which asks only for them, to restore tables event by event.

        The tasks restore their state themselves, in bulk: Faust's way is slow, swallows errors, and waits for ever when
        a changelog ends in a transaction's control record.
        """
        earliest: Mapping[TP, int] = await self.earliest_offsets(*partitions)
        return earliest

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: `runtime.consumer.watchdog` checks fetching and progress, and ends a stalled process.

        Faust's own check expects timestamps that this consumer's path does not keep (of fetches, stream events and
        Faust's commits). Five minutes after the start it would log an error per partition and check, however healthy.
        """

    async def _drain_messages(self, fetcher: Any) -> None:
        """Send fetched batches; drop what arrives during a rebalance, which the tasks have fetched again."""
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            self.polls += 1
            records, active = await self._next_records()
            if self.flow_active:
                batches = self._batches(records, active)
                self.undelivered = {tp for tp, _ in batches}
                for tp, batch in batches:
                    await self._deliver(tp, batch)
                    self.undelivered.discard(tp)

    async def _next_records(self) -> tuple[dict[TP, Fetched], set[TP]]:
        """Return what has been fetched for partitions that are not busy, and those partitions.

        A fetch that is under way does not hear of a partition that is released meanwhile: it is short then.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        await self._wait_for_busy()
        active = set() if self.app.rebalancing else set(self._get_active_partitions())
        if not active:
            if self.app.rebalancing or not self._buffered_partitions:
                await asyncio.sleep(_TOGETHER_S)
            return {}, active
        return await self._fetch(active, _TOGETHER_S if self._buffered_partitions else _IDLE_WAIT_S), active

    async def _wait_for_busy(self) -> None:
        """Wait until no partition has a batch in progress, for a moment at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOGETHER_S):
                while self._buffered_partitions:
                    self._released.clear()
                    await self._released.wait()

    async def _fetch(self, active: set[TP], timeout_s: float) -> dict[TP, Fetched]:
        """Fetch in the consumer's thread, for a bounded time.

        Faust would send the call through a queue that two workers serve. A fetch holds its worker for as long as it
        waits for an assignment, and then there is none left for what the assignment needs.
        """
        thread = self._thread

        async def fetch() -> Any:
            consumer = thread._ensure_consumer()
            try:
                async with asyncio.timeout(timeout_s + _FETCH_GRACE_S):
                    return await thread._fetch_records(
                        consumer, active, timeout=timeout_s, max_records=max_poll_records(consumer)
                    )
            except TimeoutError:  # an assignment is under way
                return {}

        records: dict[TP, Fetched] = await in_thread(thread, fetch())
        return records

    def _batches(self, records: dict[TP, Fetched], active: set[TP]) -> list[tuple[TP, Batch]]:
        generation = self.app.consumer_generation_id
        return [
            (tp, Batch(tp, of_partition, generation, of_partition.from_offset))
            for tp, of_partition in ((TP(*tp), r) for tp, r in records.items())
            if of_partition and tp in active
        ]

    async def _deliver(self, tp: TP, batch: Batch) -> None:
        if batch.generation_id != self.app.consumer_generation_id or not self.flow_active or self.app.rebalancing:
            return  # it will be fetched again by whoever owns the partition now
        self.on_buffer_full(tp)
        last = batch.records[-1]
        message = Message(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, 0, (), None, batch, None, tp=tp,
            generation_id=batch.generation_id,
        )  # fmt: skip
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        self._read_offset[tp] = last.offset


async def in_thread(thread: Any, work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in the loop of Faust's consumer thread, where aiokafka's consumer lives."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, thread.thread_loop))


class BatchTransport(driver.Transport):
    """Faust's Kafka transport with the consumer above."""

    Consumer = BatchConsumer


class _BatchSchema(Schema):
    """The value is a `Batch` already: nothing to decode."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Message, *, propagate: bool = False) -> Any:  # noqa: ARG001
            return app.create_event(None, message.value, (), message)

        return decode


class BatchApp(faust.App):
    """A Faust app whose agents receive `Batch`es.

    `app.batches(TOPIC)` is the channel to hand to `@app.agent`; each batch received must be given to `app.resume`.
    """

    def __init__(self, app_id: str, settings: Settings, *, max_poll_records: int, fetch: Fetch = Fetch()) -> None:  # noqa: B008 - immutable
        self.settings = settings
        self.fetch = fetch
        self.max_poll_records = max_poll_records
        super().__init__(
            app_id,
            broker="kafka://" + settings.kafka_bootstrap.replace(",", ";"),
            autodiscover=False,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=settings.topic_partitions,
            store="memory://",
            table_standby_replicas=0,  # the tasks restore in bulk; a standby would only lengthen each rebalance
            loghandlers=[],
            stream_wait_empty=False,  # an agent hands its batch on at once; the tasks wait for their work
            recovery_consistency_check=False,  # see BatchConsumer.highwaters
            broker_session_timeout=settings.session_timeout_s,
            broker_request_timeout=max(40, settings.session_timeout_s + 1),
            cython_optimizations=False,
            datadir=settings.data_dir / "faust",
        )

    def _new_transport(self) -> BatchTransport:
        return BatchTransport([self.conf.broker[0]], self, loop=self.loop)

    def batches(self, topic: str) -> Any:
        """Return the channel of a topic's batches."""
        return self.topic(topic, schema=_BatchSchema(), acks=False, partitions=self.settings.topic_partitions)

    def resume(self, batch: Batch) -> None:
        """Allow fetching from the batch's partition again: the batch has been accepted or dropped."""
        self.consumer.resume(batch.tp)

    async def reaches_kafka(self) -> bool:
        """Return whether a broker answers now; asks in the consumer's own thread."""
        answers: bool = await self.with_consumer(reaches_broker)
        return answers

    def batches_in_progress(self, topic: str) -> int:
        """Count the topic's partitions with a batch that was fetched and not resumed."""
        return sum(tp.topic == topic for tp in self.consumer._buffered_partitions | self.consumer.undelivered)

    @property
    def aiokafka_consumer(self) -> Any:
        """The aiokafka consumer. Await its methods in its own thread only: see `with_consumer`."""
        return self.consumer._thread._ensure_consumer()

    async def with_consumer(self, function: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """Run `function` with the aiokafka consumer in the consumer's thread; return its result."""
        return await in_thread(self.consumer._thread, function(self.aiokafka_consumer))

    async def crash(self) -> NoReturn:
        """Wait until Faust has crashed, and raise the reason."""
        await self._crashed.wait()
        raise self.crash_reason or RuntimeError("Faust crashed without a reason")

    async def seek(self, tp: TP, offset: int) -> int:
        """Fetch on from this offset, or from the earliest there is; return it.

        A partition that is not ours any more is left alone.
        """
        with contextlib.suppress(IllegalStateError):
            earliest = (await self.consumer.earliest_offsets(tp))[tp]
            if earliest > offset:
                log.error("records were deleted before they were read: the topic's retention is too short",
                          topic=tp.topic, partition=tp.partition, first=offset, next=earliest)  # fmt: skip
                offset = earliest
            await self.consumer.seek(tp, offset)
        return offset


async def batches_of(stream: AsyncIterator[Batch], app: BatchApp) -> AsyncIterator[Batch]:
    """Yield the stream's batches except those fetched before the latest rebalance: their owner fetches them again."""
    async for batch in stream:
        if batch.generation_id == app.consumer_generation_id:
            yield batch
        else:
            app.resume(batch)
        await asyncio.sleep(0)
