"""A request's body: read within limits of size and time, decompressed within a limit of size."""

import asyncio
import zlib
from collections.abc import Generator

from aiohttp import StreamReader, hdrs

from ingress.errors import Rejection, RequestError, unavailable
from ingress.http.connection import Request
from runtime.adapters.aiohttp import RequestPayloadError

_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 131_072
_MEMBERS_MAX = 64  # of a gzip body (RFC 1952 allows any number); each costs a copy of what follows it


def has_arrived(payload: StreamReader) -> bool:
    """Return whether all of the body is here."""
    return payload.is_eof() and payload.exception() is None


class BodyReader:
    """A reader of bodies within limits of size and time.

    Bodies that had not arrived with their request's head, large or slow ones, share `held_max_bytes` until their
    requests are answered. Small events are never rejected for it.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float, held_max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._held_max_bytes = held_max_bytes
        self._held_bytes = 0

    def take(self, request: Request) -> bytes:
        """Take a body that has arrived, as sent. Raise `RequestError` when it is too large."""
        body = request.payload.read_nowait()
        if len(body) > self._max_bytes:
            raise self._too_large()
        return body

    async def read(self, request: Request) -> bytes:
        """Read a body that is still arriving, as sent; `release` it later.

        Raise `RequestError`: too large, too slow, too many bodies at once, badly framed.
        """
        declared = request.message.headers.get(hdrs.CONTENT_LENGTH)
        if declared is not None and int(declared) > self._max_bytes:
            raise self._too_large()
        if hdrs.EXPECT in request.message.headers:
            request.connection.invite_body()
        return await asyncio.create_task(self._read(request))  # asyncio.timeout needs a task

    def release(self, request: Request) -> None:
        """Make room for other bodies: the request is answered."""
        self._held_bytes -= request.held_bytes
        request.held_bytes = 0

    async def _read(self, request: Request) -> bytes:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                while part := await request.payload.readany():
                    parts.append(part)
                    self._hold(request, len(part))
        except TimeoutError:
            message = f"request body did not arrive within {self._timeout_s:g} s"
            raise RequestError(Rejection.TIMED_OUT, message, close=True) from None
        except ConnectionError:
            raise RequestError(Rejection.BAD_BODY, "connection closed before the end of the body", close=True) from None
        except RequestPayloadError as error:
            raise RequestError(Rejection.BAD_BODY, f"malformed body: {error}", close=True) from None
        return b"".join(parts)

    def _hold(self, request: Request, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        request.held_bytes += size_bytes
        if request.held_bytes > self._max_bytes:
            raise self._too_large()
        if self._held_bytes > self._held_max_bytes:
            raise unavailable(Rejection.OVERLOADED, "too many bodies in transit; retry")

    def _too_large(self) -> RequestError:
        """Reject a body for its size; the rest of it is not worth reading."""
        return RequestError(Rejection.TOO_LARGE, f"body exceeds the limit of {self._max_bytes} bytes", close=True)


def gunzip(body: bytes, max_bytes: int) -> Generator[None, None, bytes]:
    """Decompress a chunk at a time, yielding None after each; return the whole.

    Never holds more than `max_bytes` of it. Raise `RequestError`.
    """
    parts: list[bytes] = []
    left = max_bytes
    if not body:
        return b""
    for _ in range(_MEMBERS_MAX):
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            part = _inflate(member, body, min(left + 1, _CHUNK_BYTES))
            left -= len(part)
            if left < 0:
                raise RequestError(Rejection.TOO_LARGE, f"decompressed body exceeds the limit of {max_bytes} bytes")
            parts.append(part)
            body = member.unconsumed_tail
            yield
        body = member.unused_data
        if not body:
            return b"".join(parts)
    raise RequestError(Rejection.BAD_BODY, f"gzip body has more than {_MEMBERS_MAX} members")


def _inflate(member: "zlib._Decompress", body: bytes, max_bytes: int) -> bytes:
    try:
        part = member.decompress(body, max_bytes)
    except zlib.error as error:
        raise RequestError(Rejection.BAD_BODY, f"body is not gzip: {error}") from None
    if not part and not member.eof:
        raise RequestError(Rejection.BAD_BODY, "gzip body is truncated")
    return part
