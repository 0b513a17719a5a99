"""aiohttp's connection, answering in the API's way.

aiohttp parses (in C), queues pipelined requests and guards its buffers. What is different here: answers are prepared
bytes (aiohttp's ways cost more than all the rest of a request's), errors that aiohttp raises itself are the API's JSON,
a request's headers must arrive in time, and an answer that is given before all of the request is here is not lost
(`lingering`).

A connection has a request under way, or it is idle. A request comes to its answer in one of two ways:

    prompt   all of it is here and its handler waits for nothing: the handler is called from where the bytes came in,
             and calls back with the answer. Nearly every request goes this way; no task has to be woken for it, twice.
    a task   everything else: a body that is still on its way, pipelined requests, a client that does not read its
             answers, and the pages. The task ends when the connection is idle again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from ingress import request_body
from ingress.errors import Reason, RequestError, unavailable
from ingress.http import lingering_close
from ingress.http.responses import Response, encoded, refusal
from runtime.platform import metrics

log = structlog.get_logger(__name__)

Handler = Callable[["Request"], Awaitable[Response]]
#: Handles a request whose body is here, and calls back with the answer: once, at once or later.
PromptHandler = Callable[["Request", Callable[[Response], None]], None]
Counter = Callable[[Response], None]


class Request:
    """A parsed request's head and its body's stream."""

    __slots__ = ("message", "payload", "protocol")

    def __init__(self, message: RawRequestMessage, payload: StreamReader, protocol: "Connection") -> None:
        self.message = message
        self.payload = payload
        self.protocol = protocol

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection; None when it is gone."""
        name = self.protocol.peername
        return name[0] if isinstance(name, tuple) else None

    def _cancel(self, error: BaseException) -> None:
        """What aiohttp calls when the client has gone: reading the body ends with `error`."""
        self.payload.set_exception(error)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_begun", "_busy", "_headers_timer", "_lingering", "server")

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self.server = server
        self._headers_timer: asyncio.TimerHandle | None = None
        self._begun = False  # a request's first bytes are here, its headers are not complete
        self._busy = False  # a request is under way, or the connection is ending
        self._lingering: lingering_close.Lingering | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for headers; one connection too many is told so and closed."""
        super().connection_made(transport)
        self.server.opened()
        if self.server.open - self.server.lingering > self.server.connections_max:
            message = f"more than {self.server.connections_max} connections: send it again later"
            self._refuse(unavailable(Reason.OVERLOADED, message))
        else:
            self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forgets the connection."""
        self._headers_are_here()
        super().connection_lost(exc)
        self.server.closed(lingering=self._lingering is not None)

    def data_received(self, data: bytes) -> None:
        """Parses; keeps time from a request's first byte to the end of its headers."""
        if self._lingering is not None:
            self._lingering.discard(data)
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._begun = False
            if self._headers_timer is not None:
                self._headers_are_here()
            if not self._busy:
                self._begin()
        elif not self._busy and not self._begun:
            self._begun = True
            if self._headers_timer is None:
                self._expect_headers()

    @property
    def idle(self) -> bool:
        """Between requests: the last one answered, nothing of a next one here."""
        return not self._busy and not self._begun

    def _expect_headers(self) -> None:
        self._headers_timer = self._loop.call_later(self.server.header_timeout_s, self._headers_are_late)

    def _headers_are_here(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _headers_are_late(self) -> None:
        self._headers_timer = None
        if not self._force_close:
            message = f"the request's headers did not arrive within {self.server.header_timeout_s:g} s"
            self._refuse(RequestError(Reason.TIMED_OUT, message))

    def _refuse(self, refused: RequestError) -> None:
        """An answer without a request."""
        reply = refusal(refused)
        self.server.count(reply)
        self._write(reply, keep_alive=False)
        self._linger()

    def _linger(self) -> None:
        """Ends the connection so that the answer just written reaches a client that is still sending."""
        self._busy = True
        transport, self.transport = self.transport, None  # aiohttp closes at once what it finds here
        self.force_close()
        if transport is None or transport.is_closing():
            return
        if self.server.lingering < lingering_close.AT_ONCE_MAX:
            self.server.lingering += 1
            self._lingering = lingering_close.Lingering(self._loop, transport)
        else:
            transport.close()

    def force_close(self) -> None:
        """Ends the connection at once, lingering or not."""
        super().force_close()
        if self._lingering is not None:
            self._lingering.cut()

    def invite_body(self, payload: StreamReader) -> None:
        """Answers `Expect: 100-continue`, unless the client has not waited for it."""
        if not payload.is_eof() and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def start(self) -> None:
        """Nothing: aiohttp makes a task of this for each connection; ours has one when it has to wait for something."""

    def _begin(self) -> None:
        """Begins with the first request that waits, on a connection that was idle."""
        self._busy = True
        message, payload = self._messages[0]
        handler = self._prompt_handler(message, payload)
        if handler is None:
            self._go_on()
            return
        try:
            handler(self._next_request(), self._answer)
        except Exception as error:
            self._broken(error)

    def _prompt_handler(self, message: Any, payload: StreamReader) -> PromptHandler | None:
        if (
            isinstance(message, RawRequestMessage)
            and message.version == HttpVersion11
            and request_body.is_here(payload)
        ):
            return self.server.prompt.get((message.method, message.path))
        return None

    def _answer(self, reply: Response) -> None:
        """A prompt handler's answer."""
        try:
            self._finish(reply)
            if self._messages or self._paused or self._close:
                self._go_on()
            else:
                self._busy = False
        except Exception as error:
            self._broken(error)

    def _go_on(self) -> None:
        self._task_handler = self._loop.create_task(self._work())

    async def _work(self) -> None:
        """The requests that wait, one after the other, until none is left or the connection ends."""
        try:
            while not self._force_close:
                if self._paused:
                    await self._read_by_client()
                elif self._close:
                    self.force_close()
                elif not self._messages:
                    self._busy = False
                    return
                elif not isinstance(self._messages[0][0], RawRequestMessage):
                    self._refuse_what_is_not_http()
                else:
                    self._finish(await self.server.handler(self._next_request()))
                    if self._messages:
                        await asyncio.sleep(0)  # others have their turn between pipelined requests
        except Exception as error:
            self._broken(error)

    def _refuse_what_is_not_http(self) -> None:
        error: Any = self._messages[0][0]  # what aiohttp makes of bytes that it could not parse
        self._refuse(RequestError(Reason.BAD_REQUEST, f"the request is not HTTP/1.1: {_first_line(error.message)}"))

    def _broken(self, error: Exception) -> None:
        log.error("a fault in a connection", error=type(error).__name__, exc_info=error)
        self.force_close()

    def _next_request(self) -> Request:
        """The first request that waits is under way from now on."""
        message, payload = cast("Any", self._messages.popleft())
        self._room_for_the_next()
        request = Request(message, payload, self)
        self._current_request, self._request_in_progress = cast("Any", request), True
        return request

    def _room_for_the_next(self) -> None:
        """Pipelined requests wait in a bounded queue; what was held back may come when it is half empty."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def _finish(self, reply: Response) -> None:
        """Answers the request under way; `_close` when it was the connection's last."""
        request = cast("Request", self._current_request)
        message, unread = request.message, not request.payload.is_eof()
        self._current_request, self._request_in_progress = None, False
        if self._handler_waiter is not None:  # a shutdown that waits for this request
            self._handler_waiter.set_result(None)
        self._close = unread or reply.close or message.should_close or message.upgrade or self.server.draining
        self.server.count(reply)
        self._write(reply, keep_alive=not self._close, message=message)
        if not self._close:
            self._idle_from_now()
        elif unread or reply.close or self._messages:
            self._linger()

    def _idle_from_now(self) -> None:
        """Keeps time of a connection without a request; one timer, which looks again when it was set too early."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def _process_keepalive(self) -> None:
        """In place of aiohttp's, which knows an idle connection by its waiting task."""
        self._keepalive_handle = None
        if self._busy or self._force_close:
            return
        if self._loop.time() < self._next_keepalive_close_time:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        else:
            self.force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Reads on, where reading was paused: aiohttp asks for it with every body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def _read_by_client(self) -> None:
        """Waits for a client that does not read its answers, no longer than for one that is idle."""
        transport = self.transport
        try:
            async with asyncio.timeout(self._keepalive_timeout):
                await self._drain_helper()
        except (TimeoutError, ConnectionError):
            self.force_close()
            if transport is not None:
                transport.abort()  # what is unread would keep it open

    def _write(self, reply: Response, *, keep_alive: bool, message: RawRequestMessage | None = None) -> None:
        if self.transport is None:
            return
        if reply.wire and keep_alive and message is not None and message.version == HttpVersion11:
            self.transport.write(reply.wire)
        else:
            http_1_0 = message is not None and message.version == HttpVersion10
            head_only = message is not None and message.method == "HEAD"
            self.transport.write(encoded(reply, keep_alive=keep_alive, http_1_0=http_1_0, head_only=head_only))


class Server(web.Server):
    """aiohttp's low-level server, making our connections and requests."""

    def __init__(
        self,
        handler: Handler,
        *,
        prompt: Mapping[tuple[str, str], PromptHandler],
        count: Counter,
        header_timeout_s: float,
        connections_max: int,
        **options: Any,
    ) -> None:
        super().__init__(cast("Any", handler))
        self.handler = handler
        self.prompt = prompt  # by method and path
        self.count = count
        self.header_timeout_s = header_timeout_s
        self.connections_max = connections_max
        self.options = options
        self.draining = False
        self.open = 0
        self.lingering = 0  # of the open ones; they take no place from others
        self._none_open = asyncio.Event()

    def opened(self) -> None:
        """A connection has been made."""
        self.open += 1
        metrics.INGRESS_CONNECTIONS.metric.inc()
        self._none_open.clear()

    def closed(self, *, lingering: bool) -> None:
        """A connection is gone."""
        self.open -= 1
        self.lingering -= lingering
        metrics.INGRESS_CONNECTIONS.metric.dec()
        if self.open == 0:
            self._none_open.set()

    def close_idle(self) -> None:
        """Closes the connections on which nothing is going on."""
        for connection in self.connections:
            if cast("Connection", connection).idle:
                connection.force_close()

    async def all_closed(self) -> None:
        """Waits until no connection is open."""
        if self.open:
            await self._none_open.wait()

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, loop=self._loop, access_log=None, auto_decompress=False, **self.options)


def _first_line(message: str | None) -> str:
    return (message or "it cannot be parsed").splitlines()[0].rstrip(":")[:200]
