"""A load generator, as lean as Python allows: keep-alive connections, prepared bodies.

It runs in the benchmark's own process, whose CPU time is not measured. Closed loop: each connection sends its next
request after the answer to the last one. Open loop: requests are due at fixed times, and latency counts from the due
time, so that a stall counts for every request that it delays.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_HEAD_END = b"\r\n\r\n"


@dataclass
class LoadResult:
    """The outcome of the requests."""

    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    unanswered: int = 0  # never sent for want of a free connection, or still pending at the end
    duration_s: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1_000


def request(body: bytes, content_type: str = "application/json") -> bytes:
    """Return a request in wire format."""
    head = (
        f"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """A connection with at most one request in flight."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self._due = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, data: bytes, due: float) -> None:
        """Send a request that was due at `due` (`time.perf_counter`)."""
        assert self.transport is not None
        self._due = due
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_HEAD_END)
        if end < 0:
            return
        head = self._received[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._received) < end + len(_HEAD_END) + length:
            return
        self._received = b""
        self._load.answered(self, self._due, accepted=head[9:12] == b"200")

    def connection_lost(self, _error: Exception | None) -> None:
        self._load.lost(self)


class _Load:
    """Connections and the requests due on them."""

    def __init__(self, bodies: Iterator[bytes]) -> None:
        self.outcome = LoadResult()
        self.idle: deque[_Connection] = deque()
        self.due: deque[float] = deque()
        self.closed_loop = False
        self._bodies = bodies
        self._pending = 0
        self._failed: Exception | None = None

    async def connect(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
            self.idle.append(connection)

    def send_due(self) -> None:
        while self.idle and self.due:
            self._pending += 1
            self.idle.popleft().send(next(self._bodies), self.due.popleft())

    def answered(self, connection: _Connection, due: float, *, accepted: bool) -> None:
        now = time.perf_counter()
        self._pending -= 1
        if accepted:
            self.outcome.latencies_s.append(now - due)
        else:
            self.outcome.refused += 1
        self.idle.append(connection)
        if self.closed_loop:
            self.due.append(now)
        self.send_due()

    def lost(self, _connection: _Connection) -> None:
        if self._pending:
            self._failed = ConnectionError("the server closed a connection")

    async def finish(self) -> LoadResult:
        if not self.closed_loop:
            self.outcome.unanswered = len(self.due)
        self.closed_loop = False
        self.due.clear()
        deadline = time.monotonic() + 10
        while self._pending and not self._failed and time.monotonic() < deadline:  # noqa: ASYNC110 - rare
            await asyncio.sleep(0.005)
        if self._failed:
            raise self._failed
        self.outcome.unanswered += self._pending
        for connection in self.idle:
            assert connection.transport is not None
            connection.transport.close()
        return self.outcome


async def closed(port: int, bodies: Iterator[bytes], connections: int, duration_s: float) -> LoadResult:
    """Send as fast as `connections` connections get answers."""
    load = _Load(bodies)
    await load.connect(port, connections)
    began = time.perf_counter()
    load.closed_loop = True
    load.due.extend([began] * connections)
    load.send_due()
    await asyncio.sleep(duration_s)
    load.outcome.duration_s = time.perf_counter() - began
    return await load.finish()


async def paced(port: int, bodies: Iterator[bytes], connections: int, rate: float, duration_s: float) -> LoadResult:
    """Send `rate` requests per second on `connections` connections."""
    load = _Load(bodies)
    await load.connect(port, connections)
    began = time.perf_counter()
    made = 0
    while (now := time.perf_counter()) < began + duration_s:
        while began + made / rate <= now:
            load.due.append(began + made / rate)
            made += 1
        load.send_due()
        await asyncio.sleep(max(0.0, began + made / rate - time.perf_counter()))
    load.outcome.duration_s = time.perf_counter() - began
    while load.due and time.perf_counter() < began + 2 * duration_s:  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.005)
    return await load.finish()


def endless(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bodies forever."""
    while True:
        yield from bodies
