"""What is handled together, and what becomes of each item."""

import asyncio
from collections.abc import Sequence

import pytest

from runtime.consumer.coalescer import Coalescer


class Worker:
    """Coalesces numbers, whose outcomes are their negatives; `enough` of them is 100 in all."""

    def __init__(self, in_progress: int, *, wait_s: float = 30.0, at_once: int = 1, most: int = 64) -> None:
        self.in_progress = in_progress
        self.calls: list[list[int]] = []
        self.refused: set[int] = set()
        self.fails = False
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.coalescer = Coalescer[int, int](
            self.handle,
            in_progress=lambda: self.in_progress,
            size_of=abs,
            enough=100,
            wait_s=wait_s,
            fit=lambda items: len(items) <= most,
            at_once=at_once,
        )

    async def handle(self, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        await self.may_go_on.wait()
        if self.fails:
            raise ValueError("of the whole call")
        return [KeyError(item) if item in self.refused else -item for item in items]

    def begin(self, *items: int) -> list["asyncio.Task[int]"]:
        return [asyncio.create_task(self.coalescer.submit(item)) for item in items]

    async def until_called(self, times: int) -> None:
        async with asyncio.timeout(5):
            while len(self.calls) < times:
                await asyncio.sleep(0.001)


async def test_what_is_in_progress_is_handled_together() -> None:
    """The first one waits for the others, and each gets its own outcome."""
    worker = Worker(in_progress=3)
    first = worker.begin(4, 2)
    await asyncio.sleep(0.01)
    assert worker.calls == []
    assert await worker.coalescer.submit(7) == -7
    assert await asyncio.gather(*first) == [-4, -2]
    assert worker.calls == [[4, 2, 7]]


async def test_nothing_waits_for_what_never_comes() -> None:
    """A partition that is being restored holds a batch that has been fetched: others go on after `wait_s`."""
    worker = Worker(in_progress=2, wait_s=0.01)
    assert await worker.coalescer.submit(1) == -1


async def test_enough_waits_for_nothing_and_is_a_bound() -> None:
    """A hundred is worth a call at once, and the call takes no more when it has them."""
    worker = Worker(in_progress=9)
    assert await asyncio.gather(*worker.begin(100, 60, 60, 250)) == [-100, -60, -60, -250]
    assert worker.calls == [[100], [60, 60], [250]]


async def test_what_does_not_fit_is_handled_next() -> None:
    """`fit` decides what may join others; one alone is always taken."""
    worker = Worker(in_progress=3, most=2)
    assert await asyncio.gather(*worker.begin(1, 2, 3)) == [-1, -2, -3]
    assert worker.calls == [[1, 2], [3]]
    alone = Worker(in_progress=1, most=0)
    assert await alone.coalescer.submit(5) == -5


@pytest.mark.parametrize("at_once", [1, 2])
async def test_calls_overlap_only_where_they_may(at_once: int) -> None:
    """What comes while `at_once` calls are being handled waits for one of them."""
    worker = Worker(in_progress=0, at_once=at_once)
    worker.may_go_on.clear()
    tasks = []
    for number in range(1, 5):
        tasks += worker.begin(number)
        await asyncio.sleep(0.01)
    assert len(worker.calls) == at_once
    worker.may_go_on.set()
    assert await asyncio.gather(*tasks) == [-1, -2, -3, -4]
    assert len(worker.calls) == at_once + 1


async def test_a_cancelled_item_is_taken_out() -> None:
    """A partition that is lost while its item waits has it not handled: its window is about to be closed."""
    worker = Worker(in_progress=2)
    (lost,) = worker.begin(1)
    await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    assert worker.coalescer.submitted == 0
    worker.in_progress = 1
    assert await worker.coalescer.submit(2) == -2
    assert worker.calls == [[2]]


async def test_the_others_outcomes_survive_a_cancelled_item() -> None:
    """What is being handled goes on when one of its submitters is gone."""
    worker = Worker(in_progress=2)
    worker.may_go_on.clear()
    lost, other = worker.begin(1, 2)
    await worker.until_called(1)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    worker.may_go_on.set()
    assert await other == -2


async def test_an_error_is_everybodys() -> None:
    """Nobody waits for ever for the outcome of a call that has failed, and the next one is handled."""
    worker = Worker(in_progress=2)
    worker.fails = True
    outcomes = await asyncio.gather(*worker.begin(1, 2), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
    worker.fails = False
    assert await asyncio.gather(*worker.begin(3, 4)) == [-3, -4]


async def test_an_error_among_the_outcomes_is_of_one() -> None:
    """The others have their outcomes."""
    worker = Worker(in_progress=3)
    worker.refused = {2}
    outcomes = await asyncio.gather(*worker.begin(1, 2, 3), return_exceptions=True)
    assert [outcomes[0], type(outcomes[1]), outcomes[2]] == [-1, KeyError, -3]


async def test_nothing_is_handled_after_close() -> None:
    """The call under way is cancelled."""
    worker = Worker(in_progress=1)
    worker.may_go_on.clear()
    (task,) = worker.begin(1)
    await worker.until_called(1)
    worker.coalescer.close()
    worker.may_go_on.set()
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
