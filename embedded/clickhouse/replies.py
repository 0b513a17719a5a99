"""Responses to clients: headers, packed and plain bodies, and errors before and after the first byte of a result."""

import json
import secrets
from dataclasses import asdict

from aiohttp import web
from multidict import CIMultiDict

from embedded.clickhouse.compression import BlockCompressor, Compressor, choose, compressor
from embedded.clickhouse.connection import Summary
from embedded.clickhouse.engine import Engine
from embedded.clickhouse.errors import ClickHouseError
from embedded.clickhouse.native import TIME_ZONE_REVISION, BlockAnnotator
from embedded.clickhouse.request import Ask

_TAG_CHARACTERS = "abcdefghijklmnopqrstuvwxyz"
# A server cuts the text of an error inside of a result at 16 KiB.
_ERROR_MAX_BYTES = 16 * 1024


def summary_header(summary: Summary) -> str:
    """Return the value of `X-ClickHouse-Summary`: numbers as strings, as a server writes them."""
    return json.dumps({name: str(value) for name, value in asdict(summary).items()}, separators=(",", ":"))


def error_text(problem: ClickHouseError, version: str) -> str:
    """Return the text of an error as a server writes it."""
    return f"{problem.text} (version {version} (official build))\n"


def error_frame(problem: ClickHouseError, version: str, tag: str) -> bytes:
    """Return the frame of an error after a result's first bytes (ClickHouse 25.11; its tag is in the headers)."""
    text = error_text(problem, version).encode()[-_ERROR_MAX_BYTES:]
    return b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag.encode(), text, len(text), tag.encode())


class Reply:
    """The answer to one request: made whole when it is small, streamed when it is not."""

    def __init__(self, request: web.BaseRequest, engine: Engine, ask: Ask, query_id: str, format_name: str) -> None:
        self.request = request
        self._engine = engine
        self._tag = "".join(secrets.choice(_TAG_CHARACTERS) for _ in range(16))
        annotate = format_name == "Native" and ask.client_protocol_version > 0
        self._annotator = BlockAnnotator(ask.client_protocol_version) if annotate else None
        self._blocks: Compressor | None = BlockCompressor() if ask.packed_blocks_out else None
        encoding = choose(request.headers.get("Accept-Encoding", "")) if ask.http_compression else None
        self._packer = compressor(encoding) if encoding else None
        self._streamed: web.StreamResponse | None = None
        self._headers = CIMultiDict(
            {
                "Content-Type": engine.content_types.get(format_name) or "text/plain; charset=UTF-8",
                "X-ClickHouse-Server-Display-Name": engine.display_name,
                "X-ClickHouse-Query-Id": query_id,
                "X-ClickHouse-Format": format_name,
                "X-ClickHouse-Timezone": engine.timezone,
                "X-ClickHouse-Exception-Tag": self._tag,
            }
        )
        if encoding:
            self._headers["Content-Encoding"] = encoding

    def lacks_time_zones(self, data: bytes) -> bool:
        """Return whether a result that begins so lacks time zones that the client expects."""
        annotator = self._annotator
        return annotator is not None and annotator.revision >= TIME_ZONE_REVISION and b"\x08DateTime" in data

    def name_types(self, types: dict[str, str]) -> None:
        """Set the types of the result's columns, by name."""
        if self._annotator is not None:
            self._annotator.types = types

    def progress(self, summary: Summary) -> None:
        """Add an `X-ClickHouse-Progress` header."""
        self._headers.add("X-ClickHouse-Progress", summary_header(summary))

    @property
    def begun(self) -> bool:
        """Whether the headers are on their way: an error can no longer change the status."""
        return self._streamed is not None

    def done(self, summary: Summary) -> web.Response:
        """Return the response to a statement without a result: it has no format."""
        del self._headers["X-ClickHouse-Format"]
        self._headers["Content-Type"] = "text/plain; charset=UTF-8"
        return self.whole(b"", summary)

    def whole(self, data: bytes, summary: Summary) -> web.Response:
        """Return the whole result as one response."""
        self._headers["X-ClickHouse-Summary"] = summary_header(summary)
        if not data:
            self._headers.pop("Content-Encoding", None)
            return web.Response(headers=self._headers)
        return web.Response(headers=self._headers, body=self._pack(data) + self._pack_end())

    async def begin(self, summary: Summary) -> None:
        """Send the headers, with the summary so far."""
        self._headers["X-ClickHouse-Summary"] = summary_header(summary)
        self._streamed = web.StreamResponse(headers=self._headers)
        self._streamed.enable_chunked_encoding()
        await self._streamed.prepare(self.request)

    async def write(self, data: bytes) -> None:
        """Send more of the result; waits while the client does not read."""
        assert self._streamed is not None  # noqa: S101 - the order of calls, not an input
        if packed := self._pack(data):
            await self._streamed.write(packed)

    async def end(self) -> web.StreamResponse:
        """Send the rest."""
        assert self._streamed is not None  # noqa: S101 - as above
        if packed := self._pack_end():
            await self._streamed.write(packed)
        await self._streamed.write_eof()
        return self._streamed

    async def fail(self, problem: ClickHouseError) -> web.StreamResponse:
        """Answer with an error.

        Once a part of the result is sent, the error is written behind it, and the body is cut off without its end, so
        that no client takes the part for the whole.
        """
        if self._streamed is None:
            return error_response(problem, self._engine, self._headers["X-ClickHouse-Query-Id"])
        frame = error_frame(problem, self._engine.version, self._tag)
        if self._blocks is not None:
            frame = self._blocks.flush() + frame  # the error itself stands outside of ClickHouse's blocks
        frame = self._through_packer(frame)
        if self._packer is not None:
            frame += self._packer.flush()
        await self._streamed.write(frame)
        cut_off(self.request)
        return self._streamed

    def _pack(self, data: bytes) -> bytes:
        if self._annotator is not None:
            data = self._annotator.feed(data)
        return self._through_packer(self._blocks.compress(data) if self._blocks is not None else data)

    def _pack_end(self) -> bytes:
        rest = self._annotator.finish() if self._annotator is not None else b""
        if self._blocks is not None:
            rest = self._blocks.compress(rest) + self._blocks.flush()
        return self._through_packer(rest) + (self._packer.flush() if self._packer is not None else b"")

    def _through_packer(self, data: bytes) -> bytes:
        return self._packer.compress(data) if self._packer is not None else data


def cut_off(request: web.BaseRequest, *, at_once: bool = False) -> None:
    """Close the connection, when what was written is sent or `at_once`; the response has no end."""
    if request.transport is not None:
        if at_once:
            request.transport.abort()
        else:
            request.transport.close()


def error_response(problem: ClickHouseError, engine: Engine, query_id: str = "") -> web.Response:
    """Return the response to a request that failed before its first byte of a result."""
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "X-ClickHouse-Server-Display-Name": engine.display_name,
        "X-ClickHouse-Exception-Code": str(problem.code),
        "X-ClickHouse-Timezone": engine.timezone,
    }
    if query_id:
        headers["X-ClickHouse-Query-Id"] = query_id
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    return web.Response(status=problem.status, headers=headers, text=error_text(problem, engine.version))
