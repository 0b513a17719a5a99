"""One client's connection: requests in, one at a time, and their responses out.

A request's handler is a coroutine. It is run in place, from where the request's bytes came in, until it waits for
something; what it waits for then runs it on. So a request needs no task, which would cost more than the rest of it. A
handler that needs a task (`asyncio.timeout` does) awaits one.

Requests must arrive in time: their heads here, their bodies in `ingress.request_body`. Errors before there is a
request (not HTTP, too slow, too many connections) get the API's JSON error too, and a response that is written before
all of the request has arrived is not lost (`lingering_close`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage

from ingress.errors import Rejection, RequestError, unavailable
from ingress.http import lingering_close
from ingress.http.responses import Response, encode, error_response
from runtime.adapters.aiohttp import HttpConnection, HttpParseError, HttpRequest
from runtime.platform import metrics

log = structlog.get_logger(__name__)

#: Makes the response to a request; never raises.
Handler = Callable[["Request"], Coroutine[Any, Any, Response]]


class Request(HttpRequest, eq=False):
    """A request, and what its handling has found out so far."""

    receipt_id: str | None = None  # set for requests that store events
    held_bytes: int = 0  # of the body, see `request_body.BodyReader`

    @property
    def peer(self) -> str | None:
        """Address at the other end of the connection; None when it is gone."""
        name = self.connection.peername
        return name[0] if isinstance(name, tuple) else None


class Connection(HttpConnection):
    """See the module's docstring."""

    __slots__ = (
        "_busy",
        "_handling",
        "_head_begun",
        "_head_timer",
        "_idle_since_s",
        "_idle_timer",
        "_linger",
        "_request",
        "loop",
        "server",
    )

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self.server = server
        self.loop = asyncio.get_running_loop()
        self._busy = False  # a request is in progress, or the connection is ending
        self._request: Any = None  # `Request` in progress
        self._handling: Any = None  # its handler, a coroutine
        self._head_begun = False  # a request's first bytes have arrived, its head is not complete
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._linger: lingering_close.LingeringClose | None = None

    # --- the connection begins and ends --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request's head; reject a connection beyond the limit."""
        super().connection_made(transport)
        self.server.opened()
        if self.server.open - self.server.lingering > self.server.connections_max:
            message = f"more than {self.server.connections_max} open connections; retry"
            self._reject(unavailable(Rejection.OVERLOADED, message))
        else:
            self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection; a request in progress goes on without it."""
        self._stop_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)
        self.server.closed(lingering=self._linger is not None)

    @property
    def idle(self) -> bool:
        """Whether the last request is answered and nothing of a next one has arrived."""
        return not self._busy and not self._head_begun

    def force_close(self) -> None:
        """End the connection at once, lingering or not."""
        super().force_close()
        if self._linger is not None:
            self._linger.abort()

    def _close_lingering(self) -> None:
        """End the connection so that the response just written reaches a client that is still sending."""
        self._busy = True
        transport, self.transport = self.transport, None  # aiohttp closes at once what it finds here
        self.force_close()
        if transport is None or transport.is_closing():
            return
        if self.server.lingering < lingering_close.AT_ONCE_MAX:
            self.server.lingering += 1
            self._linger = lingering_close.LingeringClose(self.loop, transport)
        else:
            transport.close()

    def _fail(self, error: Exception) -> None:
        log.error("connection failed", error=type(error).__name__, exc_info=error)
        self.force_close()

    # --- a request's head arrives --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse; begin with a request whose head is complete."""
        if self._linger is not None:
            self._linger.discard(data)
        elif self.feed(data):
            self._head_begun = False
            if self._head_timer is not None:
                self._stop_head_timer()
            if not self._busy:
                self._begin()
        elif not self._busy and not self._head_begun:
            self._head_begun = True
            if self._head_timer is None:
                self._start_head_timer()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.server.header_timeout_s, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if not self.is_ending:
            message = f"request headers did not arrive within {self.server.header_timeout_s:g} s"
            self._reject(RequestError(Rejection.TIMED_OUT, message))

    def _reject(self, error: RequestError) -> None:
        """Respond where there is no request, and end the connection."""
        response = error_response(error)
        self.server.count(response)
        self._write(response, keep_alive=False)
        self._close_lingering()

    def invite_body(self) -> None:
        """Write `100 Continue`, unless the client did not wait for it."""
        if self._request is not None and not self._request.payload.is_eof() and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- from a request to its response --------------------------------------------------------------------------

    def _begin(self) -> None:
        """Run the handler of the next request."""
        self._busy = True
        try:
            request = self._request = self.begin(Request)
        except HttpParseError as error:
            text = f"not a valid HTTP/1.1 request: {_first_line(str(error))}"
            self._reject(RequestError(Rejection.BAD_REQUEST, text))
            return
        except Exception as error:
            self._fail(error)
            return
        try:
            self._handling = self.server.handler(request)
        except Exception as error:
            self._respond(self.server.error_response(request, error))
        else:
            self._run_handler()

    def _run_handler(self, _awaited: object = None) -> None:
        """Run the handler until it waits or returns its response."""
        try:
            awaited = self._handling.send(None)
        except StopIteration as returned:
            self._respond(returned.value)
        except asyncio.CancelledError:  # the body of a request that a shutdown has cut off
            self.force_close()
        except Exception as error:
            self._respond(self.server.error_response(self._request, error))
        else:
            if awaited is None:  # asyncio.sleep(0)
                self.loop.call_soon(self._run_handler)
            else:  # a future, or a `Delivery`
                awaited.add_done_callback(self._run_handler)

    def _respond(self, response: Response) -> None:
        """Write the response of the request in progress, and go on with the connection or end it."""
        message, unread = self._request.message, not self._request.payload.is_eof()
        self._request = self._handling = None
        try:
            self.end()
            self.server.count(response)
            if self.transport is None:  # the client is gone
                return
            last = unread or response.close or message.should_close or message.upgrade or self.server.draining
            self._write(response, keep_alive=not last, message=message)
            if last:
                self.close()
            if last and (unread or response.close or self.has_waiting_requests):
                self._close_lingering()
            elif self.writing_paused:
                self.run(self._wait_for_reader(last=last))
            else:
                self._go_on(last=last)
        except Exception as error:
            self._fail(error)

    def _go_on(self, *, last: bool) -> None:
        """End the connection, or begin with the next request, or wait for one."""
        if last:
            self.force_close()
        elif self.has_waiting_requests:
            self.loop.call_soon(self._begin_next)  # other connections are served between pipelined requests
        else:
            self._busy = False
            self._idle_since_s = self.loop.time()
            if self._idle_timer is None:
                self._idle_timer = self.loop.call_later(self.server.keepalive_s, self._close_idle)

    def _begin_next(self) -> None:
        if not self.is_ending:
            self._begin()

    async def _wait_for_reader(self, *, last: bool) -> None:
        """Wait for a client that does not read its responses, no longer than for an idle one."""
        transport = self.transport
        try:
            async with asyncio.timeout(self.server.keepalive_s):
                await self.drain()
        except (TimeoutError, ConnectionError):
            self.force_close()
            if transport is not None:
                transport.abort()  # unread bytes would keep it open
        else:
            self._go_on(last=last)

    def _close_idle(self) -> None:
        """Close an idle connection. One timer serves many requests: if it fires too early, it is set again."""
        self._idle_timer = None
        if self._busy or self.is_ending:
            return
        left_s = self._idle_since_s + self.server.keepalive_s - self.loop.time()
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._close_idle)
        else:
            self.force_close()

    def _write(self, response: Response, *, keep_alive: bool, message: RawRequestMessage | None = None) -> None:
        if self.transport is None:
            return
        if response.wire and keep_alive and message is not None and message.version == HttpVersion11:
            self.transport.write(response.wire)
        else:
            http_1_0 = message is not None and message.version == HttpVersion10
            head_only = message is not None and message.method == "HEAD"
            self.transport.write(encode(response, keep_alive=keep_alive, http_1_0=http_1_0, head_only=head_only))


class Server(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(
        self,
        handler: Handler,
        *,
        error_response: Callable[[Request, Exception], Response],
        count: Callable[[Response], None],
        header_timeout_s: float,
        keepalive_s: float,
        connections_max: int,
        **options: Any,
    ) -> None:
        super().__init__(cast("Any", handler))
        self.handler = handler
        self.error_response = error_response
        self.count = count  # called with every response
        self.header_timeout_s = header_timeout_s
        self.keepalive_s = keepalive_s
        self.connections_max = connections_max
        self.options = options
        self.draining = False
        self.open = 0
        self.lingering = 0  # open connections that do not count against the limit
        self._none_open = asyncio.Event()

    def opened(self) -> None:
        """Count a new connection."""
        self.open += 1
        metrics.INGRESS_CONNECTIONS.metric.inc()
        self._none_open.clear()

    def closed(self, *, lingering: bool) -> None:
        """Count a connection that is gone."""
        self.open -= 1
        self.lingering -= lingering
        metrics.INGRESS_CONNECTIONS.metric.dec()
        if self.open == 0:
            self._none_open.set()

    def close_idle(self) -> None:
        """Close connections without a request."""
        for connection in self.connections:
            if cast("Connection", connection).idle:
                connection.force_close()

    async def all_closed(self) -> None:
        """Wait until no connection is open."""
        if self.open:
            await self._none_open.wait()

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, **self.options)


def _first_line(text: str) -> str:
    """Shorten aiohttp's complaint: its further lines quote the bytes."""
    return (text or "it cannot be parsed").splitlines()[0].rstrip(":")[:200]
