"""The sink's process: Faust reads both topics, one task per partition writes them to ClickHouse.

telematics.events.v1       ──> telematics.events
telematics.dead-letter.v1  ──> telematics.dead_letters

Beside them, one sink keeps the books: `sinks.bookkeeping`.
"""

import asyncio
from functools import partial

import structlog
from faust.types import TP

from runtime.adapters.faust import Fetch
from runtime.consumer.offset_committer import OffsetCommitter, commit_together
from runtime.consumer.stage import Stage
from runtime.kafka import table_topic
from runtime.kafka.deny_list import applied_to, deny_list
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform import metrics
from runtime.platform.settings import Settings
from schemas import topics
from sinks.bookkeeping import Bookkeeper
from sinks.clickhouse_connection import UNAVAILABLE
from sinks.clickhouse_writer import ClickHouseWriter
from sinks.dead_letters import DeadLetterPublisher
from sinks.intent_reader import read_intent
from sinks.joint_inserts import JointInserts
from sinks.migrator import migrate
from sinks.partition_processor import PartitionProcessor
from sinks.row_encoder import DEAD_LETTER_ROWS, EVENT_ROWS, RowEncoder

log = structlog.get_logger()

ROWS: dict[str, RowEncoder] = {topics.EVENTS: EVENT_ROWS, topics.DEAD_LETTER: DEAD_LETTER_ROWS}

_CONNECT_PAUSE_S = 1.0
#: Compressed records that are worth an insert at once: thousands.
_ENOUGH_BYTES = 1024 * 1024


class Sink:
    """The parts of the sink, put together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.erased = deny_list(settings)
        self.erased_loaded = asyncio.Event()
        self.writer = ClickHouseWriter(settings, self.erased)
        self.migrated = asyncio.Event()
        self.stage = Stage(
            settings,
            settings.sink_app_id,
            ROWS,
            self.processor,
            max_poll_records=settings.sink_batch_max_rows,
            fetch=Fetch(settings.sink_linger_ms, _ENOUGH_BYTES),
            opening="taking over",
        )
        self.inserts = {topic: self._inserts_of(topic, rows) for topic, rows in ROWS.items()}

    def processor(self, tp: TP) -> PartitionProcessor:
        """Return the processor of a partition that this worker takes over."""
        return PartitionProcessor(
            tp,
            ROWS[tp.topic],
            committer=OffsetCommitter(self.stage.app, tp, rebalance_timeout_s=self.settings.stall_timeout_s),
            inserts=self.inserts[tp.topic],
            dead_letters=DeadLetterPublisher(self.settings, tp),
            ready=self.migrated,
        )

    def _inserts_of(self, topic: str, rows: RowEncoder) -> JointInserts:
        app = self.stage.app
        return JointInserts(
            topic,
            rows,
            writer=self.writer,
            commit_together=partial(commit_together, app),
            read_intent=partial(read_intent, self.settings),
            in_progress=partial(app.batches_in_progress, topic),
            max_rows=self.settings.sink_batch_max_rows,
        )

    async def migrate(self) -> None:
        """Migrate the schema as soon as ClickHouse answers; partition tasks wait until then, and for the deny list."""
        await self.erased_loaded.wait()
        while not self.migrated.is_set():
            try:
                async with self.writer.servers.client() as client:
                    await migrate(client, self.settings)
                self.migrated.set()
            except UNAVAILABLE as error:
                log.warning("ClickHouse is not ready; retrying", error=str(error).splitlines()[0][:300])
                await asyncio.sleep(_CONNECT_PAUSE_S)

    async def keep_books(self) -> None:
        """Keep completeness and account up to date while this worker has partition 0 of the events."""
        await self.migrated.wait()
        first = TP(topics.EVENTS, 0)
        await Bookkeeper(self.settings, self.writer.servers, lambda: first in self.stage.tasks.open).run()

    async def follow_deny_list(self) -> None:
        """Read the deny list for ever."""
        await table_topic.follow(self.settings, {topics.ERASED: applied_to(self.erased)}, self.erased_loaded.set)

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
            sink.keep_books,
            sink.follow_deny_list,
            checks={"clickhouse": sink.writer.failure},
            paused_by=sink.paused_by,
        )
    finally:
        for inserts in sink.inserts.values():
            inserts.close()
        await sink.writer.close()
