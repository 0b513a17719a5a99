"""The sink's process: Faust reads both topics, one task a partition writes them to ClickHouse.

telematics.events.v1       ──> telematics.events
telematics.dead-letter.v1  ──> telematics.dead_letters
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog
from faust.types import TP

from runtime.adapters.faust import BatchApp, batches_of
from runtime.consumer.batch import Batch
from runtime.consumer.lag import records_behind
from runtime.consumer.partition_tasks import PartitionTasks
from runtime.consumer.watchdog import Watchdog
from runtime.consumer.worker import Worker
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform import health, metrics
from runtime.platform.settings import Settings
from schemas import topics
from sinks.clickhouse_writer import UNAVAILABLE, ClickHouseWriter
from sinks.dead_letters import DeadLetterPublisher
from sinks.migrator import migrate
from sinks.offset_committer import OffsetCommitter
from sinks.partition_processor import PartitionProcessor
from sinks.row_encoder import DEAD_LETTER_ROWS, EVENT_ROWS, RowEncoder

log = structlog.get_logger()

ROWS: dict[str, RowEncoder] = {topics.EVENTS: EVENT_ROWS, topics.DEAD_LETTER: DEAD_LETTER_ROWS}

_CONNECT_PAUSE_S = 1.0
_BACKLOG_RECORDS = 1_000  # worth an insert at once


class Sink:
    """The parts of the sink, put together; `run` runs them."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self.settings = settings
        self.worker = worker
        self.store = ClickHouseWriter(settings)
        self.migrated = asyncio.Event()
        self.app = BatchApp(settings.sink_app_id, settings, max_poll_records=settings.sink_batch_max_rows)
        self.tasks = PartitionTasks(self.partition, self.app.resume, self.app.seek, worker.fail)
        for topic in ROWS:
            self.app.agent(self.app.batches(topic), name=f"sink {topic}")(self._submit)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_partitions_assigned.connect(self._on_assigned)

    def partition(self, tp: TP) -> PartitionProcessor:
        """The processor of a partition that this worker takes over."""
        return PartitionProcessor(
            tp,
            ROWS[tp.topic],
            committer=OffsetCommitter(self.app, tp, rebalance_timeout_s=self.settings.stall_timeout_s),
            store=self.store,
            dead_letters=DeadLetterPublisher(self.settings, tp),
            ready=self.migrated,
            pause_s=self.pause_s,
        )

    def pause_s(self, batch: Batch) -> float:
        """
        How long to let records gather in Kafka after a batch, in seconds: the linger, or 0 while there is a backlog.

        The first event after a quiet time is inserted at once; under load an insert carries what came in a linger.
        """
        backlog = records_behind(self.app, batch.tp) > _BACKLOG_RECORDS
        return 0 if backlog else self.settings.sink_linger_ms / 1000

    async def prepare(self) -> None:
        """Brings the schema up to date as soon as ClickHouse answers; until then the tasks wait."""
        while not self.migrated.is_set():
            try:
                await migrate(await self.store.client(), self.settings)
                self.migrated.set()
            except UNAVAILABLE as error:
                log.warning("ClickHouse is not ready: trying again", error=str(error).splitlines()[0][:300])
                await asyncio.sleep(_CONNECT_PAUSE_S)

    async def kafka_failure(self) -> str | None:
        """None when Kafka answers and every assigned partition is being worked on: a check for `/readyz`."""
        opening = [f"{tp.topic}[{tp.partition}]" for tp, position in self.tasks.open.items() if position is None]
        if opening:
            return f"still taking over {', '.join(sorted(opening))}"
        if not self.tasks.open:
            return "no partitions assigned (yet, or more workers than partitions)"
        return None if await self.app.reaches_kafka() else "Kafka does not answer"

    async def paused_by(self) -> str | None:
        """Why nothing moves, when that is ClickHouse's: no reason for this process to end."""
        failure = await self.store.failure()
        return failure if failure or self.store.waiting_since is None else "an insert is being tried again"

    async def _submit(self, stream: AsyncIterator[Batch]) -> None:
        async for batch in batches_of(stream, self.app):
            self.tasks.submit(batch)

    async def _on_revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        await self.tasks.on_revoked()

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        await self.tasks.on_assigned({tp for tp in assigned if tp.topic in ROWS})


async def run(settings: Settings) -> int:
    """Run the sink until stopped (exit status 0) or broken (1); raises `OperatorError` before it begins."""
    await ensure_topics(settings, check_only=True)
    sink = Sink(settings, Worker())
    checks = {"kafka": sink.kafka_failure, "clickhouse": sink.store.failure}
    port = await health.start(settings.sink_metrics_port, checks, host=settings.metrics_host)
    try:
        watchdog = Watchdog(sink.app, sink.tasks, metrics.SINK_LAG, paused_by=sink.paused_by)
        return await sink.worker.run(sink.app, sink.tasks, sink.prepare, watchdog.run)
    finally:
        await health.stop(port)
        await sink.store.close()
