"""The recording client: devices that send, repeat, contradict and err, and write down every attempt and its answer."""

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import aiohttp

from tests.faults.history import Sent

_TYPES = ("overspeed", "fuel_fill", "fuel_drain", "geofence_enter", "tampering", "power_cut", "sos", "Harsh Brake")
_REPEATED, _CONFLICTING, _BROKEN = 0.10, 0.01, 0.01  # shares of all requests
_TIMEOUT_S = 2.0  # the sender's
_PAUSES_S = (0.1, 0.2, 0.5, 1.0)


class Load:
    """`rate` events a second from `devices` devices, each sending one after the other until it has a 200.

    A tenth of the requests repeat an earlier event (half of them with another Server_Time, as a platform's retry may
    have it); some contradict one, some break a rule, some clients hang up while their publish is under way.
    """

    HURRIED = 0.01  # share of requests that are given up at once

    def __init__(
        self,
        port: int,
        sent: list[Sent],
        *,
        rate: float = 500,
        devices: int = 200,
        seed: int = 1,
        months: int = 0,
        types: Sequence[str] = _TYPES,
    ) -> None:
        self._types = types
        self._months = months  # that some events are delivered late
        self.sent = sent  # every attempt is added here
        self.acknowledged = 0  # requests
        self.accepted = 0  # events, each counted once
        self._url = f"http://127.0.0.1:{port}/api/events"
        self._interval_s = devices / rate
        self._devices = devices
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Load":
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        first = self._random.randrange(10**9) * 1_000
        self._tasks = [asyncio.create_task(self._device(first + n)) for n in range(self._devices)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self, timeout_s: float = 60.0) -> None:
        """No more new events; what is under way is sent until it has its 200, for at most `timeout_s`."""
        self._stopping.set()
        _done, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _device(self, number: int) -> None:
        imei = f"{350_000_000_000_000 + number:015}"
        earlier: deque[dict[str, object]] = deque(maxlen=50)
        await asyncio.sleep(self._random.random() * self._interval_s)
        due_s = time.monotonic()
        while not self._stopping.is_set():
            due_s = max(due_s + self._interval_s, time.monotonic() - 10 * self._interval_s)
            payload, is_new = self._next(imei, earlier)
            await self.deliver(payload)
            self.accepted += is_new
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(0.0, due_s - time.monotonic()))

    def _next(self, imei: str, earlier: deque[dict[str, object]]) -> tuple[str, bool]:
        """What to deliver next, and whether it is an event that was not delivered before."""
        chance = self._random.random()
        if earlier and chance < _REPEATED:
            again = self._random.choice(earlier)
            later = {"Server_Time": _text(datetime.now(UTC))} if chance < _REPEATED / 2 else {}
            return json.dumps(again | later), False
        if earlier and chance < _REPEATED + _CONFLICTING:
            return json.dumps(self._random.choice(earlier) | {"Changes": self._random.randrange(1_000, 10_000)}), False
        event = self._event(imei)
        if chance > 1 - _BROKEN:
            broken = event | self._random.choice([{"IMEI": "12"}, {"Event": ""}, {"Coordinates": "91,0"}])
            return json.dumps(broken), False
        earlier.append(event)
        return json.dumps(event), True

    def probes(self, count: int, location: str) -> list[str]:
        """Events of as many other devices, to be found again by their Location."""
        first = 360_000_000_000_000 + self._random.randrange(10**12)
        return [json.dumps(self._event(str(first + n)) | {"Location": location}) for n in range(count)]

    def _event(self, imei: str) -> dict[str, object]:
        event, now = self._random.choice(self._types), datetime.now(UTC)
        late = timedelta(days=30 * self._random.randrange(self._months)) if self._months else timedelta()
        return {
            "Event": event,
            "Changes": self._random.randrange(200),
            "Device_Time": _text(now - late),
            "IMEI": imei,
            "Server_Time": _text(now),
            "Coordinates": f"{22.9 + self._random.random():.6f},{75.5 + self._random.random():.6f}",
            "Location": "Indore - Depalpur - Ingoriya Road, Kharsora",
            "Geofence_Name": "Depot 7" if event == "geofence_enter" else None,
        }

    async def deliver(self, payload: str) -> None:
        """Try until there is a 200; the pauses grow."""
        attempt = 0
        while not await self._attempt(payload, hurried=attempt == 0 and self._random.random() < self.HURRIED):
            await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)] * self._random.uniform(0.8, 1.2))
            attempt += 1

    async def _attempt(self, payload: str, *, hurried: bool) -> bool:
        assert self._session is not None
        sent_s, status = time.monotonic(), None
        timeout_s = self._random.uniform(0.001, 0.005) if hurried else _TIMEOUT_S
        headers = {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.post(self._url, data=payload.encode(), headers=headers) as answer:
                    await answer.read()
                    status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.sent.append(Sent(payload, sent_s, None, None))
            return False
        except asyncio.CancelledError:
            self.sent.append(Sent(payload, sent_s, None, None))
            raise
        self.sent.append(Sent(payload, sent_s, time.monotonic(), status))
        self.acknowledged += status == 200
        return status == 200


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
