"""Handle together what several partitions submit at about the same time.

    submit(item) of each partition ──> gather ──> take ──> handle(items) ──> an outcome for each

Work on several batches costs little more than work on one. So what is submitted waits, for a moment, for the batches
that are still on their way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_PAUSE_S = 0.001

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(eq=False, slots=True)
class _Submission(Generic[Item]):
    item: Item
    size: int
    since_s: float
    outcome: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def _always(_: Sequence[Any]) -> bool:
    return True


class Coalescer(Generic[Item, Outcome]):
    """Hands what waits to `handle`, which returns an outcome for each item, in order.

    An exception among the outcomes is raised where its item was submitted; one that `handle` raises, for all of them.

    `handle` is called when as many items wait as `in_progress` counts, or their sizes reach `enough`, or the oldest has
    waited `wait_s`. An item more is taken while the sizes are below `enough` and `fit` agrees; one alone always fits.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        in_progress: Callable[[], int],
        size_of: Callable[[Item], int],
        enough: int,
        wait_s: float,
        fit: Callable[[Sequence[Item]], bool] = _always,
        at_once: int = 1,
    ) -> None:
        self._handle = handle
        self._in_progress = in_progress
        self._size_of = size_of
        self._enough = enough
        self._wait_s = wait_s
        self._fit = fit
        self._waiting: list[_Submission[Item]] = []
        self._slots = asyncio.Semaphore(at_once)
        self._running: asyncio.Task[None] | None = None
        self._handling: set[asyncio.Task[None]] = set()
        self.submitted = 0  # items without an outcome

    async def submit(self, item: Item) -> Outcome:
        """Return the item's outcome. A cancelled call takes the item out again, unless it is being handled."""
        submission = _Submission(item, self._size_of(item), asyncio.get_running_loop().time())
        self._waiting.append(submission)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        self.submitted += 1
        try:
            outcome: Outcome = await submission.outcome
            return outcome
        finally:
            self.submitted -= 1
            if submission in self._waiting:
                self._waiting.remove(submission)

    def close(self) -> None:
        """Cancel what is being handled; what has been submitted gets no outcome any more."""
        for task in (*self._handling, *filter(None, [self._running])):
            task.cancel()

    async def _run(self) -> None:
        """Handle what waits, until nothing does."""
        while self._waiting:
            await self._slots.acquire()
            await self._gather()
            task = asyncio.create_task(self._finish(self._take()))
            self._handling.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._handling.discard(task)
        self._slots.release()

    async def _gather(self) -> None:
        """Wait for the others in progress."""
        loop = asyncio.get_running_loop()
        while (  # noqa: ASYNC110 - what it waits for is counted elsewhere
            self._waiting
            and self.submitted < self._in_progress()
            and sum(submission.size for submission in self._waiting) < self._enough
            and loop.time() < self._waiting[0].since_s + self._wait_s
        ):
            await asyncio.sleep(_PAUSE_S)

    def _take(self) -> list[_Submission[Item]]:
        """Take what is handled together; at least one, if one waits."""
        items: list[Item] = []
        count = size = 0
        for submission in self._waiting:
            items.append(submission.item)
            if size >= self._enough or (count and not self._fit(items)):
                break
            count += 1
            size += submission.size
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _finish(self, taken: Sequence[_Submission[Item]]) -> None:
        """Handle what was taken, and give each its outcome; who has cancelled gets none."""
        if not taken:
            return
        outcomes: Sequence[Outcome | Exception]
        try:
            outcomes = await self._handle([submission.item for submission in taken])
        except Exception as error:
            outcomes = [error] * len(taken)
        for submission, outcome in zip(taken, outcomes, strict=True):
            if submission.outcome.done():
                continue
            if isinstance(outcome, Exception):
                submission.outcome.set_exception(outcome)
            else:
                submission.outcome.set_result(outcome)
