"""Thread pools for blocking statements: each kind has its own pool, so that one kind cannot starve another."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from embedded.clickhouse.errors import error

T = TypeVar("T")


class StatementPool:
    """A pool that runs at most `at_once` statements at a time; the others wait for at most `wait_s` seconds.

    It may have more `threads` than that: a statement that waits for its reader keeps its thread and frees its slot.
    """

    def __init__(self, name: str, at_once: int, wait_s: float, threads: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(threads or at_once, name)
        self._free = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._wait_s = wait_s

    async def enter(self) -> Callable[[], None]:
        """Wait for a slot; the returned function frees it. Raise ClickHouseError (202) when none becomes free."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            message = f"Too many simultaneous queries. Maximum: {self._at_once}"
            raise error("TOO_MANY_SIMULTANEOUS_QUERIES", message) from None
        return self._free.release

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` in a thread of the pool."""
        return await asyncio.wrap_future(self._threads.submit(function, *arguments))

    def submit(self, function: Callable[[], None]) -> None:
        """Start `function` in a thread of the pool without waiting for it."""
        self._threads.submit(function)

    def close(self) -> None:
        """Wait for the statements that still run."""
        self._threads.shutdown()
