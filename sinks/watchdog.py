"""Ends a sink that has work and does none although ClickHouse answers: another one goes on from the last commit."""

import asyncio
import time
from typing import Any

from faust.types import TP

from runtime import metrics
from runtime.batches import BatchApp
from runtime.lanes import Lanes
from sinks.lag import records_behind
from sinks.store import Store

_INTERVAL_S = 2.0


class Stalled(Exception):  # noqa: N818 - the reason that the process ends with
    """There is lag and no progress."""


class Watchdog:
    """Looks at lag and progress every two seconds, and keeps the metric of the lag."""

    def __init__(self, app: BatchApp, lanes: Lanes, store: Store) -> None:
        self._app = app
        self._lanes = lanes
        self._store = store
        self._seen: dict[TP, tuple[Any, float]] = {}

    async def run(self) -> None:
        """Runs for ever; raises `Stalled`."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            lags = {tp: records_behind(self._app, tp) for tp in self._lanes.open}
            for tp, lag in lags.items():
                metrics.SINK_LAG.metric.labels(tp.topic, str(tp.partition)).set(lag)
            stuck = self._stuck(lags, time.monotonic())
            if stuck and await self._store.failure() is None and self._store.waiting_since is None:
                raise Stalled(f"no progress for {self._app.settings.stall_timeout_s} s: {', '.join(stuck)}")

    def _stuck(self, lags: dict[TP, int], now: float) -> list[str]:
        """The partitions with lag whose lane has not moved for the stall timeout."""
        timeout_s = self._app.settings.stall_timeout_s
        positions = self._lanes.open
        self._seen = {
            tp: seen
            if (seen := self._seen.get(tp)) and seen[0] == positions.get(tp) and lag
            else (positions.get(tp), now)
            for tp, lag in lags.items()
        }
        return [f"{tp.topic}[{tp.partition}]" for tp, (_, since) in self._seen.items() if now - since > timeout_s]
