"""A request's body: read within bounds of size and time, decompressed within bounds of size."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Generator

from aiohttp import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from ingress.errors import Reason, RequestError, unavailable

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 131_072
_MEMBERS_MAX = 64  # of a gzip body (RFC 1952 allows any number); each of them costs a copy of what follows it


def is_here(payload: StreamReader) -> bool:
    """Whether all of it has arrived."""
    return payload.is_eof() and payload.exception() is None


class Bodies:
    """
    Reads bodies within bounds of size and time.

    Those that are not whole when their request is taken up, large or slow ones, are held together within
    `held_max_bytes`, until their requests are through with them. Small events are never refused for it.
    """

    def __init__(self, *, max_bytes: int, timeout_s: float, held_max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._held_max_bytes = held_max_bytes
        self.held_bytes = 0

    def whole(self, payload: StreamReader) -> bytes:
        """A body that is here, as sent. Raises `RequestError` when it is too large."""
        body = payload.read_nowait()
        if len(body) > self._max_bytes:
            raise too_large(self._max_bytes)
        return body

    @contextlib.asynccontextmanager
    async def hold(self, payload: StreamReader) -> AsyncIterator[bytes]:
        """A body that is still coming, as sent. Raises `RequestError`: too large, too slow, too much, badly framed."""
        parts: list[bytes] = []
        try:
            await self._read(payload, parts)
            yield b"".join(parts)
        finally:
            self.held_bytes -= sum(map(len, parts))

    async def _read(self, payload: StreamReader, parts: list[bytes]) -> None:
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while part := await payload.readany():
                    parts.append(part)
                    self.held_bytes += len(part)
                    size += len(part)
                    if size > self._max_bytes:
                        raise too_large(self._max_bytes)
                    if self.held_bytes > self._held_max_bytes:
                        raise unavailable(Reason.OVERLOADED, "too many bodies are on their way: send it again")
        except TimeoutError:
            message = f"the body did not arrive within {self._timeout_s:g} s"
            raise RequestError(Reason.TIMED_OUT, message, close=True) from None
        except ConnectionError:
            raise RequestError(Reason.BAD_BODY, "the connection ended before the body did", close=True) from None
        except RequestPayloadError as error:
            raise RequestError(Reason.BAD_BODY, f"the body is broken: {error}", close=True) from None


def too_large(max_bytes: int) -> RequestError:
    """The refusal of a body larger than is accepted; what follows of it is not worth reading."""
    return RequestError(
        Reason.TOO_LARGE, f"the body is larger than the {max_bytes} bytes that are accepted", close=True
    )


def gunzip(body: bytes, max_bytes: int) -> Generator[None, None, bytes]:
    """
    Decompresses a piece at a time, pausing (with None) after each; returns the whole.

    Never holds more than `max_bytes` of it. Raises `RequestError`.
    """
    parts: list[bytes] = []
    left = max_bytes
    if not body:
        return b""
    for _ in range(_MEMBERS_MAX):
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            part = _inflate(member, body, min(left + 1, _PIECE_BYTES))
            left -= len(part)
            if left < 0:
                raise RequestError(
                    Reason.TOO_LARGE, f"the decompressed body is larger than the {max_bytes} bytes that are accepted"
                )
            parts.append(part)
            body = member.unconsumed_tail
            yield
        body = member.unused_data
        if not body:
            return b"".join(parts)
    raise RequestError(Reason.BAD_BODY, f"the gzip body has more than {_MEMBERS_MAX} members")


def _inflate(member: "zlib._Decompress", body: bytes, max_bytes: int) -> bytes:
    try:
        part = member.decompress(body, max_bytes)
    except zlib.error as error:
        raise RequestError(Reason.BAD_BODY, f"the body is not gzip: {error}") from None
    if not part and not member.eof:
        raise RequestError(Reason.BAD_BODY, "the gzip body ends too early")
    return part
