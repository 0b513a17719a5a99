"""A query's result on its way to the client: when its headers go out, and what a client that does not read costs."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO

from aiohttp import web

from embedded.clickhouse.errors import error
from embedded.clickhouse.replies import Reply, cut_off
from embedded.clickhouse.request import Ask
from embedded.clickhouse.rows import Rows

# The engine hands over at most this much at once. Until the headers are out, an error can still have its status.
_PIECE_BYTES = 1 << 20
_SPOOL_BYTES = 8 << 20
# Rows that are here go out when the query has not ended by then: a short query's headers can still carry its summary.
_HELD_BACK_S = 0.1
# A client that does not read keeps its query's place for this long, and its query for a server's http_send_timeout.
_GIVE_WAY_S = 1
SEND_TIMEOUT_S = 30


class Result:
    """The sender of a query's rows; `types` finds the types that Native does not say in full."""

    def __init__(self, rows: Rows, reply: Reply, asked: Ask, types: Callable[[], Awaitable[dict[str, str]]]) -> None:
        self._rows = rows
        self._reply = reply
        self._asked = asked
        self._types = types
        self._ended = False

    async def send(self) -> web.StreamResponse:
        """Send everything; raise ClickHouseError for the query's own failure."""
        reply, rows = self._reply, self._rows
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as held:
            await self._hold_back_with_progress(held)
            if self._ended and held.tell() < _PIECE_BYTES:
                beyond, summary = await rows.result()
                held.seek(0)
                data = held.read()
                await self._name_types(data)
                return reply.whole(data + beyond, summary)
            summary = (await rows.result())[1] if self._ended else await rows.progress()
            held.seek(0)
            data = held.read(_PIECE_BYTES)
            await self._name_types(data)
            await reply.begin(summary)
            while data:
                await self._write(data)
                data = held.read(_PIECE_BYTES)
        while data := await rows.read():
            await self._write(data)
        await rows.result()
        return await reply.end()

    async def _hold_back_with_progress(self, held: IO[bytes]) -> None:
        watching = asyncio.ensure_future(self._watch()) if self._asked.progress_interval_ms is not None else None
        try:
            await self._hold_back(held)
        except OSError as problem:
            message = f"Cannot keep the result until it is whole: {problem.strerror}"
            raise error("NOT_ENOUGH_SPACE", message) from None
        finally:
            if watching is not None:
                watching.cancel()
        if watching is not None and self._ended:
            self._reply.progress((await self._rows.result())[1])

    async def _hold_back(self, held: IO[bytes]) -> None:
        """Keep the result until it ends, or until it is time to send what is there."""
        whole = self._asked.wait_end_of_query
        most = self._asked.response_buffer_bytes or _PIECE_BYTES
        deadline_s: float | None = None
        loop = asyncio.get_running_loop()
        while whole or held.tell() < most:
            try:
                async with asyncio.timeout_at(deadline_s):
                    data = await self._rows.read()
            except TimeoutError:
                return
            if not data:
                self._ended = True
                return
            held.write(data)
            if deadline_s is None and not whole and not self._asked.response_buffer_bytes:
                deadline_s = loop.time() + _HELD_BACK_S

    async def _watch(self) -> None:
        assert self._asked.progress_interval_ms is not None  # noqa: S101 - the caller's condition
        while True:
            await asyncio.sleep(self._asked.progress_interval_ms / 1000)
            if (progress := await self._rows.progress()).elapsed_ns:  # not before its start or after its end
                self._reply.progress(progress)

    async def _name_types(self, data: bytes) -> None:
        if self._reply.lacks_time_zones(data):
            self._reply.name_types(await self._types())

    async def _write(self, data: bytes) -> None:
        giving_way = asyncio.get_running_loop().call_later(_GIVE_WAY_S, self._rows.give_way)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._reply.write(data)
        except TimeoutError:
            cut_off(self._reply.request, at_once=True)
            raise ConnectionResetError("the client does not read") from None
        finally:
            giving_way.cancel()
