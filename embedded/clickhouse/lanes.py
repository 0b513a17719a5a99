"""Threads for blocking statements: each kind has a lane of its own, so that one kind cannot take another's place."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from embedded.clickhouse.errors import error

T = TypeVar("T")


class Lane:
    """
    At most `at_once` statements at a time; the others wait for at most `wait_s` seconds.

    There are `threads` of them, so that statements which gave their place back can wait for their readers.
    """

    def __init__(self, name: str, at_once: int, wait_s: float, threads: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(threads or at_once, name)
        self._free = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._wait_s = wait_s

    async def enter(self) -> Callable[[], None]:
        """Wait for a place; the returned function gives it back. Raises ClickHouseError (202) when none gets free."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            message = f"Too many simultaneous queries. Maximum: {self._at_once}"
            raise error("TOO_MANY_SIMULTANEOUS_QUERIES", message) from None
        return self._free.release

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call in a thread of the lane."""
        return await asyncio.wrap_future(self._threads.submit(function, *arguments))

    def submit(self, function: Callable[[], None]) -> None:
        """Call in a thread of the lane, whoever waits for it or not."""
        self._threads.submit(function)

    def close(self) -> None:
        """Wait for what still runs."""
        self._threads.shutdown()
