"""Measure how long after sending an event is visible in ClickHouse, by polling for a sample."""

import asyncio
import time

from eventpush.clickhouse_client import connected
from eventpush.simulation import stored_events
from eventpush.simulation.fleet import ExpectedOutcome, Identity
from eventpush.simulation.sender import Delivery, Sender
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

_POLL_MIN_S = 0.02
_UNAVAILABLE_DELAY_S = 1.0
_SAMPLES_PER_S = 20
_WAITING_MAX = 500


class VisibilityProbe:
    """A watch over a sample of a sender's deliveries; `delays_s` grows while `watch` runs."""

    def __init__(self, settings: Settings, sender: Sender, rate: float) -> None:
        self.delays_s: list[float] = []
        self._settings = settings
        self._sender = sender
        self._each = max(1, round(rate / _SAMPLES_PER_S))
        self._next = 0
        self._waiting: list[Delivery] = []
        self._began_us = time.time_ns() // 1_000

    async def watch(self) -> None:
        """Poll until cancelled; wait while ClickHouse is unavailable."""
        while True:
            try:
                async with connected(self._settings) as client:
                    while True:
                        asked = time.monotonic()
                        self._take_sample()
                        waiting = [d for d in self._waiting if d.sent_at]
                        if waiting:
                            self._see(
                                waiting, await stored_events.arrivals(client, [d.event.identity for d in waiting])
                            )
                        await asyncio.sleep(max(_POLL_MIN_S, 2 * (time.monotonic() - asked)))
            except OperatorError:
                await asyncio.sleep(_UNAVAILABLE_DELAY_S)

    def _take_sample(self) -> None:
        deliveries = self._sender.deliveries
        for delivery in deliveries[self._next :: self._each]:
            if delivery.event.expected_outcome is ExpectedOutcome.VALID and len(self._waiting) < _WAITING_MAX:
                self._waiting.append(delivery)
            self._next += self._each

    def _see(self, waiting: list[Delivery], found: dict[Identity, int]) -> None:
        now = time.time()
        for delivery in waiting:
            arrived_us = found.get(delivery.event.identity)
            if arrived_us is None:
                continue
            self._waiting.remove(delivery)
            # Retries after a lost answer and rows of an earlier run do not measure the pipeline.
            if delivery.attempts == 1 and arrived_us >= self._began_us:
                self.delays_s.append(now - delivery.sent_at)
