"""A request's body: read within bounds of size and time, decompressed within bounds of size."""

import asyncio
import zlib

from aiohttp import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from ingress.refusals import Reason, Refused

_GZIP = 16 + zlib.MAX_WBITS


def is_here(payload: StreamReader) -> bool:
    """Whether all of it has arrived."""
    return payload.is_eof() and payload.exception() is None


def whole(payload: StreamReader, max_bytes: int) -> bytes:
    """A body that is here. Raises `Refused` when it is too large."""
    body = payload.read_nowait()
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


async def read(payload: StreamReader, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body as sent. Raises `Refused` when it is too large, too slow, or its framing is broken."""
    try:
        if is_here(payload):
            return whole(payload, max_bytes)
        async with asyncio.timeout(timeout_s):
            return await _read_slowly(payload, max_bytes)
    except TimeoutError:
        raise Refused(Reason.TIMED_OUT, f"the body did not arrive within {timeout_s:g} s", close=True) from None
    except ConnectionError:
        raise Refused(Reason.BAD_BODY, "the connection ended before the body did", close=True) from None
    except RequestPayloadError as error:
        raise Refused(Reason.BAD_BODY, f"the body is broken: {error}", close=True) from None


async def _read_slowly(payload: StreamReader, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await payload.readany():
        size += len(part)
        if size > max_bytes:
            raise too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def too_large(max_bytes: int) -> Refused:
    """The refusal of a body larger than is accepted; what follows of it is not worth reading."""
    return Refused(Reason.TOO_LARGE, f"the body is larger than the {max_bytes} bytes that are accepted", close=True)


def gunzip(body: bytes, max_bytes: int) -> bytes:
    """The decompressed body, never holding more than `max_bytes` of it. Raises `Refused`."""
    parts: list[bytes] = []
    left = max_bytes
    while body:
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(body, left + 1)
        except zlib.error as error:
            raise Refused(Reason.BAD_BODY, f"the body is not gzip: {error}") from None
        left -= len(part)
        if left < 0:
            raise Refused(
                Reason.TOO_LARGE, f"the decompressed body is larger than the {max_bytes} bytes that are accepted"
            )
        if not member.eof:
            raise Refused(Reason.BAD_BODY, "the gzip body ends too early")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)
