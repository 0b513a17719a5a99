"""The sender's side of the contract: POST, retry anything but 200 with exponential backoff, in order by device."""

import asyncio
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import aiohttp

from eventpush.simulation.fleet import PlannedEvent
from runtime.platform.backoff import Backoff

_ANSWER_TIMEOUT_S = 2.0  # "Recommended response time < 2 seconds"
_BACKOFF_MIN_S, _BACKOFF_MAX_S, _BACKOFF_JITTER = 0.1, 5.0, 0.5
_CUT_OFF_S = 0.004  # the connection is cut after this, usually during the request


@dataclass
class Delivery:
    """The delivery of one planned event; times in seconds since the epoch."""

    event: PlannedEvent
    sent_at: float = 0.0  # the first attempt
    acknowledged_at: float = 0.0  # 0 if no 200 was received
    attempts: int = 0


@dataclass
class SendCounters:
    """The sender's counters."""

    due: int = 0
    requests: int = 0
    acknowledged: int = 0  # events, not answers
    lost_answers: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # status, or the error's name


class Sender:
    """A sender of planned events at a rate, those of one device in sequence; it records every delivery."""

    def __init__(
        self,
        url: str,
        *,
        headers: dict[str, str],
        seed: int,
        lost_answers: float,
        connections: int = 64,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Take `lost_answers` as the share of requests whose answer the sender ignores, so that it retries them."""
        self.url = url
        self.counters = SendCounters()
        self.deliveries: list[Delivery] = []
        self._headers = {"Content-Type": "application/json", **headers}
        self._random = Random(seed)
        self._lost_answers = lost_answers
        self._connections = connections
        self._ssl = ssl_context
        self._waiting: dict[str, deque[Delivery]] = {}
        self._devices: set[asyncio.Task[None]] = set()

    async def send(self, events: Iterable[PlannedEvent], rate: float, give_up_after_s: float) -> None:
        """Send all events, `rate` per second; return when all are acknowledged or none was for `give_up_after_s`.

        Unacknowledged events have `acknowledged_at` 0.
        """
        connector = aiohttp.TCPConnector(limit=self._connections, ssl=self._ssl or True)
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers) as session:
            await self._at_rate(events, rate, session)
            acknowledged = -1
            while self._devices and self.counters.acknowledged > acknowledged:
                acknowledged = self.counters.acknowledged
                await asyncio.wait(self._devices, timeout=give_up_after_s)
            for device in self._devices:
                device.cancel()
            await asyncio.gather(*self._devices, return_exceptions=True)

    async def _at_rate(self, events: Iterable[PlannedEvent], rate: float, session: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        for number, event in enumerate(events):
            ahead_s = number / rate - (time.monotonic() - began)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif number % 100 == 0:
                await asyncio.sleep(0)
            self._enqueue(Delivery(event), session)

    def _enqueue(self, delivery: Delivery, session: aiohttp.ClientSession) -> None:
        self.counters.due += 1
        self.deliveries.append(delivery)
        imei = delivery.event.imei
        if imei in self._waiting:
            self._waiting[imei].append(delivery)
            return
        self._waiting[imei] = deque([delivery])
        device = asyncio.create_task(self._deliver_all(imei, session))
        self._devices.add(device)
        device.add_done_callback(self._devices.discard)

    async def _deliver_all(self, imei: str, session: aiohttp.ClientSession) -> None:
        waiting = self._waiting[imei]
        while waiting:
            await self._deliver(waiting[0], session)
            waiting.popleft()
        del self._waiting[imei]

    async def _deliver(self, delivery: Delivery, session: aiohttp.ClientSession) -> None:
        backoff = Backoff(_BACKOFF_MIN_S, _BACKOFF_MAX_S, _BACKOFF_JITTER)
        acknowledged = await self._attempt(delivery, session)
        while not acknowledged:
            await asyncio.sleep(backoff.next_s())
            acknowledged = await self._attempt(delivery, session)
        delivery.acknowledged_at = time.time()
        self.counters.acknowledged += 1

    async def _attempt(self, delivery: Delivery, session: aiohttp.ClientSession) -> bool:
        """Make one request; return whether its 200 was received."""
        self.counters.requests += 1
        delivery.attempts += 1
        delivery.sent_at = delivery.sent_at or time.time()
        lost = self._random.random() < self._lost_answers
        cut_off = lost and self._random.random() < 0.5
        try:
            async with asyncio.timeout(_CUT_OFF_S if cut_off else None):
                async with session.post(self.url, data=delivery.event.body, allow_redirects=False) as answer:
                    status = answer.status
        except TimeoutError:
            if cut_off:
                self.counters.lost_answers += 1
            else:
                self.counters.answers["no answer"] += 1
            return False
        except (aiohttp.ClientError, OSError) as error:
            self.counters.answers[type(error).__name__] += 1
            return False
        self.counters.answers[str(status)] += 1
        self.counters.lost_answers += lost
        return status == 200 and not lost
