"""One task a partition: its batches are processed in order, those of different partitions side by side.

A task is opened when its partition is assigned and closed when it is not any more; over a rebalance that leaves the
partition here, the task and its state stay.

Around a rebalance fetched batches are dropped here and there: by the consumer, by the stream, by the task. So a task
goes by offsets alone: a batch that is complete from an offset beyond the task's position has lost something before it.
It is dropped, and fetching goes back to the position. If there was a rebalance since the task was opened, somebody else
may have owned the partition in between: then the task is opened anew first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from faust.types import TP

from runtime.consumer.batch import Batch

log = structlog.get_logger()


class Processor(Protocol):
    """What a task drives; an exception from any of these ends the process."""

    async def open(self) -> int:
        """Take the partition over; returns the offset of the first record to process."""

    async def process(self, batch: Batch) -> None:
        """Process the batch and commit it: when this returns, it is done for good."""

    async def close(self) -> None:
        """Let go of the partition."""


class PartitionTask:
    """The batches of one partition, one after the other."""

    def __init__(
        self,
        processor: Processor,
        resume: Callable[[Batch], None],
        seek: Callable[[TP, int], Awaitable[int]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._processor = processor
        self._resume = resume
        self._seek = seek
        self._rebalances = 0
        self._opened_in = 0  # after which of the rebalances
        self._queue: asyncio.Queue[Batch] = asyncio.Queue()
        self._idle = asyncio.Event()
        self.position: int | None = None
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda task: None if task.cancelled() else self._ended(task, fail))

    @property
    def busy(self) -> bool:
        """Whether the partition is being opened or a batch is under way."""
        return not self._idle.is_set()

    @staticmethod
    def _ended(task: "asyncio.Task[None]", fail: Callable[[BaseException], None]) -> None:
        if (error := task.exception()) is not None:
            fail(error)

    def submit(self, batch: Batch) -> None:
        """Queue a batch; it is released when it has been processed."""
        self._queue.put_nowait(batch)

    async def drain(self, timeout_s: float) -> None:
        """Drop what waits and let the batch under way finish, for at most `timeout_s`."""
        self._rebalances += 1
        while not self._queue.empty():
            self._resume(self._queue.get_nowait())
        if self.position is not None:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout_s)
            except TimeoutError:
                log.warning("batch still under way at a rebalance", position=self.position)

    async def close(self) -> None:
        """Stop and let go of the partition."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._processor.close()

    async def _run(self) -> None:
        position = self.position = await self._open()
        while True:
            self._idle.set()
            batch = await self._queue.get()
            self._idle.clear()
            try:
                position = self.position = await self._advance(batch, position)
            finally:
                self._resume(batch)

    async def _open(self) -> int:
        self._opened_in = self._rebalances
        return await self._processor.open()

    async def _advance(self, batch: Batch, position: int) -> int:
        """Process what is new in the batch; returns the new position."""
        if batch.from_offset > position:
            position = await self._go_back(batch, position)
            if batch.from_offset > position:
                return position
        fresh = batch.beginning_at(position)
        if fresh is None:
            return position
        await self._processor.process(fresh)
        return fresh.next_offset

    async def _go_back(self, batch: Batch, position: int) -> int:
        """Something before the batch is missing; returns the position from which it is fetched again."""
        if self._opened_in != self._rebalances:
            log.info("partition may have moved while it was away: opening it anew", partition=batch.tp.partition)
            await self._processor.close()
            position = await self._open()
        return position if batch.from_offset <= position else await self._seek(batch.tp, position)


class PartitionTasks:
    """The tasks of all partitions that this worker owns."""

    def __init__(
        self,
        make: Callable[[TP], Processor],
        resume: Callable[[Batch], None],
        seek: Callable[[TP, int], Awaitable[int]],
        fail: Callable[[BaseException], None],
        *,
        drain_timeout_s: float = 4.0,
    ) -> None:
        self._make = make
        self._resume = resume
        self._seek = seek
        self._fail = fail
        self._drain_timeout_s = drain_timeout_s
        self._tasks: dict[TP, PartitionTask] = {}
        self._closed = False

    def submit(self, batch: Batch) -> None:
        """Hand a batch to its partition's task; one for a partition that is not ours is dropped."""
        task = self._tasks.get(batch.tp)
        if task is None:
            self._resume(batch)
        else:
            task.submit(batch)

    async def on_revoked(self) -> None:
        """A rebalance begins: every task comes to rest, none is closed yet."""
        await asyncio.gather(*(task.drain(self._drain_timeout_s) for task in self._tasks.values()))

    async def on_assigned(self, owned: set[TP]) -> None:
        """A rebalance is over: close the tasks of lost partitions, open those of new ones, keep the rest."""
        lost = [self._tasks.pop(tp) for tp in set(self._tasks) - owned]
        await asyncio.gather(*(task.close() for task in lost))
        if self._closed:
            return
        for tp in owned - set(self._tasks):
            self._tasks[tp] = PartitionTask(self._make(tp), self._resume, self._seek, self._fail)

    async def close(self) -> None:
        """Finish what is under way, then let go of everything; what is assigned from now on is left alone."""
        self._closed = True
        await self.on_revoked()
        await self.on_assigned(set())

    @property
    def open(self) -> dict[TP, int | None]:
        """The next offset of every owned partition; None while its state is being restored."""
        return {tp: task.position for tp, task in self._tasks.items()}

    @property
    def busy(self) -> set[TP]:
        """The partitions that are being opened or have a batch under way."""
        return {tp for tp, task in self._tasks.items() if task.busy}
