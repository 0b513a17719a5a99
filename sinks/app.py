"""The sink's process: Faust reads both topics, one lane a partition writes them to ClickHouse.

telematics.events.v1       ──> telematics.events
telematics.dead-letter.v1  ──> telematics.dead_letters
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog
from faust.types import TP

from runtime import health, metrics
from runtime.batches import Batch, BatchApp, batches_of
from runtime.lag import records_behind
from runtime.lanes import Lanes
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from runtime.watchdog import Watchdog
from runtime.worker import Worker
from schemas import topics
from sinks.dead_letters import DeadLetters
from sinks.ledger import Ledger
from sinks.migrations import migrate
from sinks.partition import Partition
from sinks.rows import DEAD_LETTER_ROWS, EVENT_ROWS, Rows
from sinks.store import UNAVAILABLE, Store

log = structlog.get_logger()

ROWS: dict[str, Rows] = {topics.EVENTS: EVENT_ROWS, topics.DEAD_LETTER: DEAD_LETTER_ROWS}

_CONNECT_PAUSE_S = 1.0
_BACKLOG_RECORDS = 1_000  # worth an insert at once


class Sink:
    """The parts of the sink, put together; `run` runs them."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self.settings = settings
        self.worker = worker
        self.store = Store(settings)
        self.migrated = asyncio.Event()
        self.app = BatchApp(settings.sink_app_id, settings, max_poll_records=settings.sink_batch_max_rows)
        self.lanes = Lanes(self.partition, self.app.release, self.app.rewind, worker.fail)
        for topic in ROWS:
            self.app.agent(self.app.batches(topic), name=f"sink {topic}")(self._feed)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_partitions_assigned.connect(self._on_assigned)

    def partition(self, tp: TP) -> Partition:
        """The processor of a partition that this worker takes over."""
        return Partition(
            tp,
            ROWS[tp.topic],
            ledger=Ledger(self.app, tp, rebalance_timeout_s=self.settings.stall_timeout_s),
            store=self.store,
            dead_letters=DeadLetters(self.settings, tp),
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
        """Brings the schema up to date as soon as ClickHouse answers; until then the lanes wait."""
        while not self.migrated.is_set():
            try:
                await migrate(await self.store.client(), self.settings)
                self.migrated.set()
            except UNAVAILABLE as error:
                log.warning("ClickHouse is not ready: trying again", error=str(error).splitlines()[0][:300])
                await asyncio.sleep(_CONNECT_PAUSE_S)

    async def kafka_failure(self) -> str | None:
        """None when Kafka answers and every assigned partition is being worked on: a check for `/readyz`."""
        opening = [f"{tp.topic}[{tp.partition}]" for tp, position in self.lanes.open.items() if position is None]
        if opening:
            return f"still taking over {', '.join(sorted(opening))}"
        if not self.lanes.open:
            return "no partitions assigned (yet, or more workers than partitions)"
        return None if await self.app.reaches_kafka() else "Kafka does not answer"

    async def excuse(self) -> str | None:
        """Why nothing moves, when that is ClickHouse's: no reason for this process to end."""
        failure = await self.store.failure()
        return failure if failure or self.store.waiting_since is None else "an insert is being tried again"

    async def _feed(self, stream: AsyncIterator[Batch]) -> None:
        async for batch in batches_of(stream, self.app):
            self.lanes.feed(batch)

    async def _on_revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        await self.lanes.on_revoked()

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        await self.lanes.on_assigned({tp for tp in assigned if tp.topic in ROWS})


async def run(settings: Settings) -> int:
    """Runs the sink until it is told to stop (exit status 0) or breaks (1); raises `Problem` before it has begun."""
    await ensure_topics(settings, check_only=True)
    sink = Sink(settings, Worker())
    checks = {"kafka": sink.kafka_failure, "clickhouse": sink.store.failure}
    port = await health.start(settings.sink_metrics_port, checks, host=settings.metrics_host)
    try:
        watchdog = Watchdog(sink.app, sink.lanes, metrics.SINK_LAG, excuse=sink.excuse)
        return await sink.worker.run(sink.app, sink.lanes, sink.prepare, watchdog.run)
    finally:
        await health.stop(port)
        await sink.store.close()
