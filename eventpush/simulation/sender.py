"""The sender's side of the contract: POST, repeat with exponential backoff on anything but 200, in order by device."""

import asyncio
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import aiohttp

from eventpush.simulation.fleet import PlannedEvent

_ANSWER_TIMEOUT_S = 2.0  # "Recommended response time < 2 seconds"
_BACKOFF_MIN_S, _BACKOFF_MAX_S = 0.1, 5.0
_CUT_OFF_S = 0.004  # after this the connection is cut: mostly while the request is under way


@dataclass
class Delivery:
    """What happened to one planned event on its way; times in seconds since the epoch."""

    event: PlannedEvent
    sent_at: float = 0.0  # the first time
    acknowledged_at: float = 0.0  # 0 when no 200 was seen
    attempts: int = 0


@dataclass
class Tally:
    """What the sender has counted so far."""

    due: int = 0
    requests: int = 0
    acknowledged: int = 0  # events, not answers
    lost_answers: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # status, or the error's name


class Sender:
    """Sends planned events at a rate, those of one device one after the other, and remembers every delivery."""

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
        """`lost_answers` is the share of requests whose answer the sender does not see, so that it repeats them."""
        self.url = url
        self.tally = Tally()
        self.deliveries: list[Delivery] = []
        self._headers = {"Content-Type": "application/json", **headers}
        self._random = Random(seed)
        self._lost_answers = lost_answers
        self._connections = connections
        self._ssl = ssl_context
        self._waiting: dict[str, deque[Delivery]] = {}
        self._devices: set[asyncio.Task[None]] = set()

    async def send(self, events: Iterable[PlannedEvent], rate: float, give_up_after_s: float) -> None:
        """Send all events, `rate` a second; return when each is acknowledged, or none was for `give_up_after_s`.

        What has not been acknowledged by then has `acknowledged_at` 0.
        """
        connector = aiohttp.TCPConnector(limit=self._connections, ssl=self._ssl or True)
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers) as session:
            await self._at_rate(events, rate, session)
            acknowledged = -1
            while self._devices and self.tally.acknowledged > acknowledged:
                acknowledged = self.tally.acknowledged
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
        self.tally.due += 1
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
        backoff_s = _BACKOFF_MIN_S
        while not await self._attempt(delivery, session):
            await asyncio.sleep(backoff_s * (0.5 + self._random.random()))
            backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)
        delivery.acknowledged_at = time.time()
        self.tally.acknowledged += 1

    async def _attempt(self, delivery: Delivery, session: aiohttp.ClientSession) -> bool:
        """One request; whether its 200 was seen."""
        self.tally.requests += 1
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
                self.tally.lost_answers += 1
            else:
                self.tally.answers["no answer"] += 1
            return False
        except (aiohttp.ClientError, OSError) as error:
            self.tally.answers[type(error).__name__] += 1
            return False
        self.tally.answers[str(status)] += 1
        self.tally.lost_answers += lost
        return status == 200 and not lost
