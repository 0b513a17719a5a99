"""The stream stage's process: Faust reads the raw topic, one lane a partition judges it.

telematics.raw.v1 ──> agent ──> lane ──> validate → deduplicate → enrich ──> one transaction a batch
"""

from collections.abc import AsyncIterator
from typing import Any

from faust.types import TP

from runtime import directories, health, metrics
from runtime.batches import Batch, BatchApp, batches_of
from runtime.clock import steady_clock
from runtime.lanes import Lanes
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from runtime.watchdog import Watchdog
from runtime.worker import Worker
from schemas import topics
from streams.partition import Partition
from streams.registry import Registry
from streams.table import WindowTable, window_table
from streams.type_topics import TypeTopics


class Streams:
    """The parts of the stream stage, put together; `run` runs them."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self.settings = settings
        self.worker = worker
        self.app = BatchApp(settings.streams_app_id, settings, max_poll_records=settings.streams_batch_max_events)
        self.table: WindowTable = window_table(self.app)
        self.registry = Registry(settings)
        self.type_topics = TypeTopics(settings)
        self.clock = steady_clock()
        self._joined = False
        self.lanes = Lanes(self.partition, self.app.release, self.app.rewind, worker.fail)
        self.app.agent(self.app.batches(topics.RAW), name="judge")(self._feed)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_partitions_assigned.connect(self._on_assigned)

    def partition(self, tp: TP) -> Partition:
        """The processor of a partition that this worker takes over."""
        return Partition(self.settings, tp, self.table, self.registry, self.type_topics, self.clock)

    async def failure(self) -> str | None:
        """None when Kafka answers and every assigned partition is being worked on: a check for `/readyz`."""
        opening = [tp.partition for tp, position in self.lanes.open.items() if position is None]
        if opening:
            return f"restoring the window of partitions {sorted(opening)}"
        if not self._joined:  # a spare worker joins, and has no partitions
            return "not in the consumer group yet"
        return None if await self.app.reaches_kafka() else "Kafka does not answer"

    def progress(self, tp: TP) -> tuple[int | None, int]:
        """What changes while a partition is being restored or worked on."""
        return self.lanes.open.get(tp), self.table.identities_of(tp.partition)

    async def _feed(self, stream: AsyncIterator[Batch]) -> None:
        async for batch in batches_of(stream, self.app):
            self.lanes.feed(batch)

    async def _on_revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        await self.lanes.on_revoked()

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        # Faust leaves a changelog partition alone, but aiokafka would go on fetching it.
        self.app.consumer.pause_fetching({tp for tp in assigned if tp.topic == topics.WINDOW})
        await self.lanes.on_assigned({tp for tp in assigned if tp.topic == topics.RAW})
        self._joined = True


async def run(settings: Settings) -> int:
    """Run until told to stop (exit status 0) or broken (1); raises `Problem` before it has begun."""
    if settings.window_store == "rocksdb":
        directories.require_writable(settings.data_dir / "window")
    await ensure_topics(settings, check_only=True)
    streams = Streams(settings, Worker())
    await streams.type_topics.start()
    metrics.STREAMS_WINDOW_IDENTITIES.metric.set_function(streams.table.identities)
    port = await health.start(settings.streams_metrics_port, {"kafka": streams.failure}, host=settings.metrics_host)
    try:
        watchdog = Watchdog(streams.app, streams.lanes, metrics.STREAMS_LAG, mark=streams.progress)
        return await streams.worker.run(streams.app, streams.lanes, streams.registry.follow, watchdog.run)
    finally:
        await health.stop(port)
