"""aiohttp's server connection reduced to its C parser, its queue of parsed requests and its buffer limits.

This is the only module that uses private names of aiohttp. aiohttp's own request handling (a task per connection, a
`Response` built header by header) costs more than the rest of a request, so `HttpConnection` leaves it out: a subclass
takes parsed requests, writes responses to `transport`, and decides when the connection ends.

`tests/unit/test_aiohttp_adapter.py` lists the private names, and pyproject.toml pins aiohttp below its next minor.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserC
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

__all__ = ["HttpConnection", "HttpParseError", "HttpRequest", "RequestPayloadError", "has_c_parser"]


def has_c_parser() -> bool:
    """Return whether aiohttp parses with its C extension, not with its slow and laxer Python parser."""
    return HttpRequestParser is HttpRequestParserC


Request = TypeVar("Request", bound="HttpRequest")


class HttpParseError(Exception):
    """The bytes on a connection are not HTTP/1.1, or exceed a limit; the text is aiohttp's."""


class HttpRequest(msgspec.Struct, eq=False):  # made in half the time of a plain class
    """A parsed request: its head, the stream of its body, and its connection."""

    message: RawRequestMessage
    payload: StreamReader
    connection: Any

    def _cancel(self, error: BaseException) -> None:
        """Fail reading the body: aiohttp calls this when the client is gone."""
        self.payload.set_exception(error)


class HttpConnection(RequestHandler):
    """A connection whose subclass takes the parsed requests one at a time and answers them."""

    __slots__ = ()

    def __init__(self, server: web.Server, **options: Any) -> None:
        options |= {"access_log": None, "auto_decompress": False, "keepalive_timeout": 0, "lingering_time": 0}
        super().__init__(server, loop=asyncio.get_running_loop(), **options)

    async def start(self) -> None:
        """Do nothing: aiohttp runs its request handling here, in a task for each connection."""

    def feed(self, data: bytes) -> bool:
        """Parse bytes; whether they completed the head of a request (or could not be parsed)."""
        before = self._request_count
        super().data_received(data)
        return self._request_count != before

    @property
    def has_waiting_requests(self) -> bool:
        """Whether a parsed request waits to be taken."""
        return bool(self._messages)

    @property
    def is_ending(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._force_close

    def begin(self, request_class: type[Request]) -> Request:
        """Begin with the next parsed request, and read on if the queue was full. Raise `HttpParseError`.

        aiohttp fails the body of the request in progress when the client leaves, and a shutdown waits for it.
        """
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        if not isinstance(message, RawRequestMessage):
            raise HttpParseError(message.message or "")
        request = request_class(message, payload, self)
        self._current_request = request  # type: ignore[assignment]  # aiohttp calls `_cancel` only
        self._request_in_progress = True
        return request

    def end(self) -> None:
        """End the request in progress: its response is made."""
        self._current_request, self._request_in_progress = None, False
        if self._handler_waiter is not None:  # a shutdown waits for this request
            self._handler_waiter.set_result(None)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in a task that a shutdown cancels; one at a time."""
        self._task_handler = asyncio.get_running_loop().create_task(work)

    async def drain(self) -> None:
        """Wait until the client has read most of what was written. Raise ConnectionError when it is gone."""
        await self._drain_helper()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading only where it was paused: aiohttp calls this for every body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)
