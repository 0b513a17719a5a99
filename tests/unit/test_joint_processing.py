"""Which batches are processed together, and what becomes of each."""

import asyncio
from collections.abc import Sequence
from typing import Any

from streams.batch_processor import BatchResult, PartitionState, RawBatch
from streams.joint_processing import JointProcessing
from streams.latest_states import LatestStates
from streams.memory_segment import MemorySegment
from streams.window import DeduplicationWindow


def partition(number: int) -> PartitionState:
    return PartitionState(number, DeduplicationWindow(86_400_000_000, lambda _: MemorySegment()), LatestStates())


class FakeProcessor:
    """A processor that notes which partitions each call has, and returns their numbers as latest arrivals."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.fails = False

    def process(self, batches: Sequence[RawBatch]) -> list[BatchResult]:
        self.calls.append([batch.partition.number for batch in batches])
        if self.fails:
            raise ValueError("the processor's")
        return [BatchResult(latest_us=batch.partition.number) for batch in batches]


class Worker:
    """The joint processing of a worker to which `arriving` batches are on their way."""

    def __init__(self, arriving: int) -> None:
        self.processor = FakeProcessor()
        processor: Any = self.processor
        self.processing = JointProcessing(processor, lambda: arriving)

    async def process(self, number: int, records: int = 1) -> int:
        made: list[Any] = [None] * records
        return (await self.processing.process(partition(number), made)).latest_us


async def test_batches_that_arrive_together_are_one_call() -> None:
    """The first one waits for the others, and each gets its own outcome."""
    worker = Worker(arriving=3)
    first = [asyncio.create_task(worker.process(number)) for number in (4, 2)]
    await asyncio.sleep(0)
    assert await worker.process(7) == 7
    assert await asyncio.gather(*first) == [4, 2]
    assert worker.processor.calls == [[4, 2, 7]]


async def test_a_batch_does_not_wait_for_what_never_comes() -> None:
    """A partition that is being restored holds a batch that has been fetched: others go on after a moment."""
    worker = Worker(arriving=2)
    assert await worker.process(1) == 1


async def test_large_batches_are_not_put_together() -> None:
    """A thousand records are worth a call at once, so one call never holds the loop for many of them."""
    worker = Worker(arriving=3)
    assert await asyncio.gather(*(worker.process(number, records=1_000) for number in range(3))) == [0, 1, 2]
    assert worker.processor.calls == [[0], [1], [2]]


async def test_a_lost_partition_is_taken_out() -> None:
    """A task that is cancelled while its batch waits has it not processed: its window is about to be closed."""
    worker = Worker(arriving=2)
    lost = asyncio.create_task(worker.process(0))
    await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    assert await worker.process(1) == 1
    assert worker.processor.calls == [[1]]


async def test_an_error_is_everybodys() -> None:
    """No partition waits for ever for the outcome of a call that has failed."""
    worker = Worker(arriving=2)
    worker.processor.fails = True
    outcomes = await asyncio.gather(worker.process(0), worker.process(1), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
    worker.processor.fails = False
    assert await worker.process(2) == 2
