"""How long after it was sent an event can be selected: measured by asking ClickHouse for a sample, again and again."""

import asyncio
import time

from eventpush.clickhouse import connected
from eventpush.simulation import stored
from eventpush.simulation.fleet import Fate, Identity
from eventpush.simulation.sender import Delivery, Sender
from runtime.errors import Problem
from runtime.settings import Settings

_POLL_MIN_S = 0.02
_AWAY_PAUSE_S = 1.0
_SAMPLES_PER_S = 20
_WAITING_MAX = 500


class Visibility:
    """Watches a sample of a sender's deliveries; `delays_s` grows while `watch` runs."""

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
                            self._see(waiting, await stored.arrivals(client, [d.event.identity for d in waiting]))
                        await asyncio.sleep(max(_POLL_MIN_S, 2 * (time.monotonic() - asked)))
            except Problem:
                await asyncio.sleep(_AWAY_PAUSE_S)

    def _take_sample(self) -> None:
        deliveries = self._sender.deliveries
        for delivery in deliveries[self._next :: self._each]:
            if delivery.event.fate is Fate.VALID and len(self._waiting) < _WAITING_MAX:
                self._waiting.append(delivery)
            self._next += self._each

    def _see(self, waiting: list[Delivery], found: dict[Identity, int]) -> None:
        now = time.time()
        for delivery in waiting:
            arrived_us = found.get(delivery.event.identity)
            if arrived_us is None:
                continue
            self._waiting.remove(delivery)
            # A repeat after a lost answer says nothing of the pipeline, and a row of an earlier run neither.
            if delivery.attempts == 1 and arrived_us >= self._began_us:
                self.delays_s.append(now - delivery.sent_at)
