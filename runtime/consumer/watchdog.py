"""End a worker that has lag and makes no progress; its supervisor starts another, which resumes at the last commit."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from faust.types import TP

from runtime.adapters.faust import BatchApp
from runtime.consumer.complete_through import CompleteThrough
from runtime.consumer.lag import records_behind
from runtime.consumer.partition_gauge import PartitionGauge
from runtime.consumer.partition_tasks import PartitionTasks
from runtime.platform import metrics

_INTERVAL_S = 2.0
_REBALANCE_MARGIN_S = 10.0
_FETCH_TIMEOUT_S = 10.0


class StalledError(Exception):
    """There is lag and no progress."""


class StallDetector:
    """Find partitions that have had work and no progress for longer than `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[TP, tuple[Any, float]] = {}

    def stuck(self, progress: Mapping[TP, Any], now_s: float) -> list[TP]:
        """Return the partitions without progress for too long; `progress` maps each with work to a value."""
        since = self._since
        self._since = {
            tp: since[tp] if tp in since and since[tp][0] == value else (value, now_s) for tp, value in progress.items()
        }
        return [tp for tp, (_, began_s) in self._since.items() if now_s - began_s > self._timeout_s]


class Watchdog:
    """Check lag and progress every two seconds, and keep the metrics of both up to date.

    `progress` returns a value that changes while a partition's task makes progress (default: its position). While
    `paused_by` returns a reason to wait, no partition counts as stuck.
    """

    def __init__(
        self,
        app: BatchApp,
        tasks: PartitionTasks,
        lag: metrics.Gauge,
        complete_through: metrics.Gauge,
        *,
        progress: Callable[[TP], Any] | None = None,
        paused_by: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        self._app = app
        self._tasks = tasks
        self._lag = PartitionGauge(lag)
        self._complete_through = CompleteThrough(complete_through)
        self._progress_of = progress or self._position
        self._paused_by = paused_by
        self._partitions = StallDetector(app.settings.stall_timeout_s)
        # Every member has rejoined or been removed after one session timeout; the rest is for Faust to fetch again.
        self._rebalance_timeout_s = 2 * app.settings.session_timeout_s + _REBALANCE_MARGIN_S
        self._rebalances = StallDetector(self._rebalance_timeout_s)
        self._fetching = StallDetector(_FETCH_TIMEOUT_S)

    def _check_rebalance(self) -> None:
        """Detect that Faust's recovery task ended silently (a cancelled seek): nothing is ever fetched again then."""
        app = self._app
        under_way = {TP("", 0): app.consumer_generation_id} if app.rebalancing else {}
        if self._rebalances.stuck(under_way, time.monotonic()):
            raise StalledError(f"a rebalance did not end within {self._rebalance_timeout_s} s")

    def _check_fetching(self) -> None:
        """Detect a stuck fetch loop: a healthy one polls about every second."""
        consumer = self._app.consumer
        free = not self._app.rebalancing and consumer.flow_active and self._tasks.open
        if self._fetching.stuck({TP("", 0): consumer.polls} if free else {}, time.monotonic()):
            raise StalledError(f"no fetch for {_FETCH_TIMEOUT_S:g} s")

    def _position(self, tp: TP) -> int | None:
        return self._tasks.open.get(tp)

    async def run(self) -> None:
        """Check until cancelled; raise `StalledError`."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self._check_rebalance()
            self._check_fetching()
            lags = {tp: records_behind(self._app, tp) for tp in self._tasks.open}
            self._lag.show(lags)
            working = self._tasks.busy | {tp for tp, records in lags.items() if records}
            self._complete_through.update(self._tasks.open, working, self._tasks.processed_ms)
            stuck = self._partitions.stuck({tp: self._progress_of(tp) for tp in working}, time.monotonic())
            if stuck and (self._paused_by is None or await self._paused_by() is None):
                where = ", ".join(f"{tp.topic}[{tp.partition}]" for tp in stuck)
                raise StalledError(f"no progress for {self._app.settings.stall_timeout_s} s: {where}")
