"""The sink's process: Faust reads both topics, one task per partition writes them to ClickHouse.

telematics.events.v1       ──> telematics.events
telematics.dead-letter.v1  ──> telematics.dead_letters
"""

import asyncio

import structlog
from faust.types import TP

from runtime.consumer.batch import Batch
from runtime.consumer.lag import records_behind
from runtime.consumer.stage import Stage
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform import metrics
from runtime.platform.settings import Settings
from schemas import topics
from sinks.clickhouse_connection import UNAVAILABLE
from sinks.clickhouse_writer import ClickHouseWriter
from sinks.dead_letters import DeadLetterPublisher
from sinks.migrator import migrate
from sinks.offset_committer import OffsetCommitter
from sinks.partition_processor import PartitionProcessor
from sinks.row_encoder import DEAD_LETTER_ROWS, EVENT_ROWS, RowEncoder

log = structlog.get_logger()

ROWS: dict[str, RowEncoder] = {topics.EVENTS: EVENT_ROWS, topics.DEAD_LETTER: DEAD_LETTER_ROWS}

_CONNECT_PAUSE_S = 1.0
_BACKLOG_RECORDS = 1_000  # worth inserting at once


class Sink:
    """The parts of the sink, put together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.writer = ClickHouseWriter(settings)
        self.migrated = asyncio.Event()
        self.stage = Stage(
            settings,
            settings.sink_app_id,
            ROWS,
            self.processor,
            max_poll_records=settings.sink_batch_max_rows,
            opening="taking over",
        )

    def processor(self, tp: TP) -> PartitionProcessor:
        """Return the processor of a partition that this worker takes over."""
        return PartitionProcessor(
            tp,
            ROWS[tp.topic],
            committer=OffsetCommitter(self.stage.app, tp, rebalance_timeout_s=self.settings.stall_timeout_s),
            writer=self.writer,
            dead_letters=DeadLetterPublisher(self.settings, tp),
            ready=self.migrated,
            pause_s=self.pause_s,
        )

    def pause_s(self, batch: Batch) -> float:
        """Return how long to let records accumulate in Kafka, in seconds: the linger, or 0 with a backlog.

        The first event after a quiet time is inserted at once; under load an insert holds the records of one linger.
        """
        backlog = records_behind(self.stage.app, batch.tp) > _BACKLOG_RECORDS
        return 0 if backlog else self.settings.sink_linger_ms / 1000

    async def migrate(self) -> None:
        """Migrate the schema as soon as ClickHouse answers; partition tasks wait until then."""
        while not self.migrated.is_set():
            try:
                async with self.writer.servers.client() as client:
                    await migrate(client, self.settings)
                self.migrated.set()
            except UNAVAILABLE as error:
                log.warning("ClickHouse is not ready; retrying", error=str(error).splitlines()[0][:300])
                await asyncio.sleep(_CONNECT_PAUSE_S)

    async def paused_by(self) -> str | None:
        """Return why ClickHouse keeps the sink from making progress, or None: no reason for this process to end."""
        failure = await self.writer.failure()
        return failure if failure or self.writer.waiting_since is None else "retrying an insert"


async def run(settings: Settings) -> int:
    """Run until stopped (exit status 0) or failed (1); raise `OperatorError` if it cannot start."""
    await ensure_topics(settings, check_only=True)
    sink = Sink(settings)
    try:
        return await sink.stage.run(
            metrics.SINK_LAG,
            metrics.SINK_COMPLETE_THROUGH,
            settings.sink_metrics_port,
            sink.migrate,
            checks={"clickhouse": sink.writer.failure},
            paused_by=sink.paused_by,
        )
    finally:
        await sink.writer.close()
