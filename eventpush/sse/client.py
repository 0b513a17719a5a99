"""A connected client: what is written to it, within bounds of time and memory."""

import asyncio
import contextlib
import socket
import time

import structlog
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from eventpush.sse.request import Position
from runtime.platform import metrics

log = structlog.get_logger()

_RECONNECT_MS = 3_000  # how long a browser waits before it reconnects
_PING_S = 15.0  # proxies close a connection on which nothing comes for a minute
_POSITION_S = 5.0  # how often a client learns how far its filter has read
_FAREWELL_S = 1.0
_SEND_BUFFER_BYTES = 131_072  # in the kernel, which doubles it; without a bound it grows to megabytes


class Client:
    """One response; a client that goes away is no error."""

    def __init__(self, request: web.Request, name: str, send_timeout_s: float) -> None:
        # The response's own timeout is for pings, and for a client that is gone without a word.
        self.response = EventSourceResponse(send_timeout=2 * send_timeout_s, ping_interval=_PING_S)
        self._request = request
        self._name = name
        self._send_timeout_s = send_timeout_s
        self._sent_id, self._sent_s = "", 0.0

    def is_open(self) -> bool:
        """Return whether neither side has ended the connection."""
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    async def open(self, position: Position) -> None:
        """Begin the response."""
        if self._request.transport is None:
            raise web.HTTPBadRequest(text="the connection is closed\n")
        connection = self._request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        await self.response.prepare(self._request)
        await self._write(f"retry: {_RECONNECT_MS}\n")
        await self.tell(position)

    async def send(self, value: str, position: Position) -> bool:
        """Send an event, and end a client that takes too long; return whether the client is still there."""
        self._sent_id, self._sent_s = str(position), time.monotonic()
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self.response.send(value, id=self._sent_id)
        except TimeoutError:
            await self.end("slow", f"the connection took nothing for {self._send_timeout_s:g} s")
        except ConnectionError:
            return False
        metrics.SSE_EVENTS.metric.inc()
        return self.is_open()

    async def tell(self, position: Position) -> None:
        """Now and then, send the id alone: a browser keeps it, and reading resumes there. It is not an event."""
        now_s = time.monotonic()
        if now_s - self._sent_s >= _POSITION_S and str(position) != self._sent_id:
            self._sent_id, self._sent_s = str(position), now_s
            await self._write(f"id: {position}\n\n")

    async def end(self, reason: str, text: str) -> None:
        """End the response with an event that says why, for a client that reads on; then cut it off."""
        log.warning("client is disconnected", client=self._name, reason=text)
        metrics.SSE_DISCONNECTS.metric.labels(reason).inc()
        if self._request.transport is not None:
            self._request.transport.set_write_buffer_limits(0)  # from here on, writing waits until all is written
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_FAREWELL_S):
                await self.response.send(text, event="disconnected")
                await self.response.write_eof()
        self.cut_off()

    def cut_off(self) -> None:
        """Close the connection at once."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _write(self, text: str) -> None:
        with contextlib.suppress(ConnectionError):
            await self.response.write(text.encode())
