"""A request's body: unpacked as it arrives, in pieces of bounded size."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from aiohttp import web

from embedded.clickhouse.compression import PIECE_BYTES, BlockDecompressor, Decompressor, decompressor
from embedded.clickhouse.errors import error

# As a server's http_receive_timeout.
RECEIVE_TIMEOUT_S = 30


class Body:
    """The unpacked bytes of a request; what was looked at in advance comes again when it is read."""

    def __init__(self, request: web.BaseRequest, *, packed_blocks: bool) -> None:
        self._request = request
        self._steps: list[Decompressor] = []
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            self._steps.append(decompressor(encoding))
        if packed_blocks:
            self._steps.append(BlockDecompressor())
        self._stream = self._unpacked()
        self._ahead = bytearray()
        self._ended = False

    async def beginning(self, size: int) -> bytes:
        """Return the first bytes, at least `size` of them unless the body ends earlier."""
        await self._fill(size)
        return bytes(self._ahead)

    def skip(self, size: int) -> None:
        """Drop the first `size` bytes of what was looked at."""
        del self._ahead[:size]

    async def pieces(self, before: bytes = b"") -> AsyncIterator[bytes]:
        """Yield everything, after `before`, in pieces of about 1 MiB."""
        self._ahead[:0] = before
        while not self._ended or self._ahead:
            await self._fill(PIECE_BYTES)
            piece = bytes(self._ahead)
            self._ahead.clear()
            yield piece

    async def _fill(self, size: int) -> None:
        while len(self._ahead) < size and not self._ended:
            data = await anext(self._stream, None)
            if data is None:
                self._ended = True
            else:
                self._ahead += data

    async def _unpacked(self) -> AsyncIterator[bytes]:
        while data := await self._received():
            for piece in _unpack(data, self._steps):
                yield piece
        for step in self._steps:
            step.finish()

    async def _received(self) -> bytes:
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                return await self._request.content.readany()
        except TimeoutError:
            raise error("SOCKET_TIMEOUT", f"Timeout exceeded while reading the body ({RECEIVE_TIMEOUT_S} s)") from None


def _unpack(data: bytes, steps: list[Decompressor]) -> Iterator[bytes]:
    if not steps:
        yield data
        return
    for piece in steps[0].feed(data):
        yield from _unpack(piece, steps[1:])
