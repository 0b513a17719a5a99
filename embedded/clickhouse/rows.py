"""A running query's result, read through a pipe as the engine writes it."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from embedded.clickhouse.connection import Summary

_PIPE_BYTES = 1 << 20
_KILL_AGAIN_S = 0.2

_endings: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly
_F_SETPIPE_SZ: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)


class Rows:
    """The result of a query that `start` begins, given the pipe's end to write to (which it must close).

    `kill` ends the query early; `progress` returns what it has read so far; `give_way` lets
    another query have its place, while no client reads this one's.
    """

    def __init__(
        self,
        start: Callable[[int], Coroutine[Any, Any, tuple[bytes, Summary]]],
        kill: Callable[[], Awaitable[None]],
        progress: Callable[[], Awaitable[Summary]],
        give_way: Callable[[], None],
    ) -> None:
        self.give_way = give_way
        self.progress = progress
        self._kill = kill
        self._source, sink = os.pipe()
        os.set_blocking(self._source, False)
        if _F_SETPIPE_SZ is not None:
            with suppress(OSError):  # more than this user may have: the default serves
                fcntl.fcntl(sink, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._outcome = asyncio.ensure_future(start(sink))

    async def read(self) -> bytes:
        """Return the next bytes, at most 1 MiB; empty at the end, which `result` reports as success or error."""
        while True:
            try:
                return os.read(self._source, _PIPE_BYTES)
            except BlockingIOError:
                await self._readable()

    async def result(self) -> tuple[bytes, Summary]:
        """Return the bytes that did not go through the pipe, and the summary; raise ClickHouseError."""
        return await asyncio.shield(self._outcome)

    async def close(self) -> None:
        """End the query if it still runs, and wait until it has ended.

        To close the pipe is not enough: the engine would go on without a reader. A caller that is cancelled while it
        waits does not keep the query from being ended.
        """
        os.close(self._source)
        ending = asyncio.create_task(self._end())
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        await asyncio.shield(ending)

    async def _end(self) -> None:
        while not self._outcome.done():
            await self._kill()
            # Again, because a query that is about to start is not found yet.
            await asyncio.wait({self._outcome}, timeout=_KILL_AGAIN_S)
        if not self._outcome.cancelled():
            self._outcome.exception()  # retrieved: no caller will ask for it

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._source, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._source)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
