"""The stream stage's process: Faust reads the raw topic, one task a partition judges it.

telematics.raw.v1 ──> agent ──> task ──> validate → deduplicate → enrich ──> one transaction a batch
"""

from collections.abc import AsyncIterator
from typing import Any

from faust.types import TP

from runtime.adapters.faust import BatchApp, batches_of
from runtime.consumer.batch import Batch
from runtime.consumer.partition_tasks import PartitionTasks
from runtime.consumer.watchdog import Watchdog
from runtime.consumer.worker import Worker
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform import directories, health, metrics
from runtime.platform.clock import steady_clock
from runtime.platform.settings import Settings
from schemas import topics
from streams.device_registry import DeviceRegistry
from streams.partition_processor import PartitionProcessor
from streams.type_topics import TypeTopics
from streams.window_table import WindowTable, window_table


class StreamStage:
    """The parts of the stream stage, put together; `run` runs them."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self.settings = settings
        self.worker = worker
        self.app = BatchApp(settings.streams_app_id, settings, max_poll_records=settings.streams_batch_max_events)
        self.table: WindowTable = window_table(self.app)
        self.registry = DeviceRegistry(settings)
        self.type_topics = TypeTopics(settings)
        self.clock = steady_clock()
        self._joined = False
        self.tasks = PartitionTasks(self.partition, self.app.resume, self.app.seek, worker.fail)
        self.app.agent(self.app.batches(topics.RAW), name="judge")(self._submit)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_partitions_assigned.connect(self._on_assigned)

    def partition(self, tp: TP) -> PartitionProcessor:
        """The processor of a partition that this worker takes over."""
        return PartitionProcessor(self.settings, tp, self.table, self.registry, self.type_topics, self.clock)

    async def failure(self) -> str | None:
        """None when Kafka answers and every assigned partition is being worked on: a check for `/readyz`."""
        opening = [tp.partition for tp, position in self.tasks.open.items() if position is None]
        if opening:
            return f"restoring the window of partitions {sorted(opening)}"
        if not self._joined:  # a spare worker joins, and has no partitions
            return "not in the consumer group yet"
        return None if await self.app.reaches_kafka() else "Kafka does not answer"

    def progress(self, tp: TP) -> tuple[int | None, int]:
        """What changes while a partition is being restored or worked on."""
        return self.tasks.open.get(tp), self.table.identities_of(tp.partition)

    async def _submit(self, stream: AsyncIterator[Batch]) -> None:
        async for batch in batches_of(stream, self.app):
            self.tasks.submit(batch)

    async def _on_revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        await self.tasks.on_revoked()

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        # Faust leaves a changelog partition alone, but aiokafka would go on fetching it.
        self.app.consumer.pause_fetching({tp for tp in assigned if tp.topic == topics.WINDOW})
        await self.tasks.on_assigned({tp for tp in assigned if tp.topic == topics.RAW})
        self._joined = True


async def run(settings: Settings) -> int:
    """Run until told to stop (exit status 0) or broken (1); raises `OperatorError` before it has begun."""
    if settings.window_store == "rocksdb":
        directories.require_writable(settings.data_dir / "window")
    await ensure_topics(settings, check_only=True)
    streams = StreamStage(settings, Worker())
    await streams.type_topics.start()
    metrics.STREAMS_WINDOW_IDENTITIES.metric.set_function(streams.table.identities)
    port = await health.start(settings.streams_metrics_port, {"kafka": streams.failure}, host=settings.metrics_host)
    try:
        watchdog = Watchdog(streams.app, streams.tasks, metrics.STREAMS_LAG, progress=streams.progress)
        return await streams.worker.run(streams.app, streams.tasks, streams.registry.follow, watchdog.run)
    finally:
        await health.stop(port)
