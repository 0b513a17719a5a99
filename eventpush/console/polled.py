"""A source that is asked at most once per interval, however many pages look, and not at all when none does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from runtime.platform.errors import OperatorError

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """The last answer of a source, or its problem in words; neither before the first answer."""

    value: T | None = None
    problem: str | None = None
    loading: bool = False


class Polled(Generic[T]):
    """A source behind a function that raises `OperatorError` when it is unavailable."""

    def __init__(
        self,
        load: Callable[[], Awaitable[T]],
        interval_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._due_s = float("-inf")
        self._value: T | None = None
        self._problem: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def get(self, wait_s: float = 0.5) -> Reading[T]:
        """Return the last answer, after waiting at most `wait_s` for a new one if it is due."""
        if self._task is None and self._clock() >= self._due_s:
            self._task = asyncio.create_task(self._ask())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait_s)
        return Reading(self._value, self._problem, self._task is not None)

    def expire(self) -> None:
        """Ask again at the next `get`."""
        self._due_s = float("-inf")

    async def close(self) -> None:
        """Give up a question that is still open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                self._value, self._problem = await self._load(), None
            # A source that takes long is asked less often: it is busy for a twentieth of the time at most.
            self._due_s = max(began + self._interval_s, self._clock() + 20 * (self._clock() - began - self._interval_s))
        except OperatorError as problem:
            self._fail(str(problem))
        except TimeoutError:
            self._fail(f"no answer within {self._timeout_s:g} s")
        finally:
            self._task = None

    def _fail(self, problem: str) -> None:
        self._value, self._problem = None, problem
        self._due_s = self._clock() + self._interval_s
