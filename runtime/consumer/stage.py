"""The wiring that the stream stage and the sink share: Faust's agents and rebalances drive one task per partition."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

from faust.types import TP

from runtime.adapters import aiokafka
from runtime.adapters.faust import BatchApp, Fetch, batches_of
from runtime.consumer.batch import Batch
from runtime.consumer.growth import leave_when_growing
from runtime.consumer.partition_tasks import PartitionTasks, Processor
from runtime.consumer.watchdog import Watchdog
from runtime.consumer.worker import Worker
from runtime.platform import health, metrics
from runtime.platform.settings import Settings


class Stage:
    """A Faust app that reads `topics` in batches and processes each partition in its own task.

    `make_processor` returns the processor of a partition that was assigned; `opening` says in `/readyz` what a
    partition is waiting for while its processor opens. Requires a running event loop; patches aiokafka.
    """

    def __init__(
        self,
        settings: Settings,
        app_id: str,
        topics: Collection[str],
        make_processor: Callable[[TP], Processor],
        *,
        max_poll_records: int,
        opening: str,
        fetch: Fetch = Fetch(),  # noqa: B008 - immutable
    ) -> None:
        aiokafka.install()
        self._settings = settings
        self._topics = frozenset(topics)
        self._opening = opening
        self._joined = False
        self._worker = Worker()
        self.app = BatchApp(app_id, settings, max_poll_records=max_poll_records, fetch=fetch)
        self.tasks = PartitionTasks(make_processor, self.app.resume, self.app.seek, self._worker.fail)
        for topic in topics:
            self.app.agent(self.app.batches(topic), name=f"submit {topic}")(self._submit)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_partitions_assigned.connect(self._on_assigned)

    async def kafka_failure(self) -> str | None:
        """Return None when Kafka answers and every assigned partition is open: a check for `/readyz`.

        A spare worker, which has joined the group and has no partitions, is ready.
        """
        opening = [f"{tp.topic}[{tp.partition}]" for tp, position in self.tasks.open.items() if position is None]
        if opening:
            return f"{self._opening} {', '.join(sorted(opening))}"
        if not self._joined:
            return "not in the consumer group yet"
        return None if await self.app.reaches_kafka() else "Kafka does not answer"

    async def run(
        self,
        lag: metrics.Gauge,
        complete_through: metrics.Gauge,
        port: int,
        *beside: Callable[[], Awaitable[None]],
        checks: Mapping[str, health.Check] | None = None,
        progress: Callable[[TP], Any] | None = None,
        paused_by: Callable[[], Awaitable[str | None]] | None = None,
    ) -> int:
        """Serve health and metrics on `port` and run until stopped (returns 0) or failed (1).

        `beside` run concurrently with the app; for `progress` and `paused_by` see `Watchdog`. Raise `OperatorError` if
        the port is in use.
        """
        runner = await health.start(
            port, {"kafka": self.kafka_failure, **(checks or {})}, host=self._settings.metrics_host
        )
        try:
            watchdog = Watchdog(self.app, self.tasks, lag, complete_through, progress=progress, paused_by=paused_by)
            leave = partial(leave_when_growing, self._settings)
            return await self._worker.run(self.app, self.tasks, *beside, watchdog.run, leave)
        finally:
            await health.stop(runner)

    async def _submit(self, stream: AsyncIterator[Batch]) -> None:
        async for batch in batches_of(stream, self.app):
            self.tasks.submit(batch)

    async def _on_revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        await self.tasks.on_revoked()

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        # Other partitions are of a table's changelog: Faust does not read them, but aiokafka would fetch them.
        owned = {tp for tp in assigned if tp.topic in self._topics}
        if others := assigned - owned:
            self.app.consumer.pause_fetching(others)
        await self.tasks.on_assigned(owned)
        self._joined = True
