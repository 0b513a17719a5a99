"""One task per partition: its batches are processed in order, those of different partitions concurrently.

A task opens when its partition is assigned and closes when the partition is lost. It keeps its state over a rebalance
that leaves the partition with this worker.

Around a rebalance the consumer, the stream and the task may each drop fetched batches. So a task relies on offsets
alone: if a batch is complete only from an offset beyond the task's position, records before it are missing. The task
drops the batch and seeks to its position. If there was a rebalance since the task opened, another worker may have owned
the partition in between, so the task reopens first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from faust.types import TP

from runtime.consumer.batch import Batch

log = structlog.get_logger()


class Processor(Protocol):
    """What processes the batches of one partition; implemented by each stage.

    The partition's task calls `open` first, then `process` for one batch after another, and `close` last. Calls never
    overlap. After a rebalance that kept the partition, the task may call `close` and then `open` on the same object, so
    `open` must reset all state. `close` also follows an `open` or `process` that was cancelled or has failed, and must
    cope with a partly opened processor.

    All methods run on the event loop that all partitions share: await I/O, and hand CPU work of more than a batch's
    worth to a thread. There is no timeout but the watchdog's: `open` and `process` may wait for other systems as long
    as the stage reports progress or a pause (`Watchdog`).

    An exception from `open` or `process` ends the process, and its supervisor starts another one, which resumes at the
    last commit. Retry what may pass, dead-letter what never will, and raise only what a restart can help with, such as
    a fenced producer. A rebalance waits some seconds for the current `process`, but does not cancel it; losing the
    partition does, at any await. So the commit must be atomic and fenced against a new owner.
    """

    async def open(self) -> int:
        """Take the partition over: fence the previous owner, restore state.

        Returns the offset of the first record to process. Until then the partition is not ready, and its fetched
        batches wait. The first batch may start earlier; the task cuts it to this offset.
        """

    async def process(self, batch: Batch) -> None:
        """Process the batch and commit its outcome and `batch.next_offset`.

        Returns when the batch never needs processing again. Batches are contiguous: each starts at the previous one's
        `next_offset`, but for transaction markers. The partition is not fetched again until this returns.
        """

    async def close(self) -> None:
        """Release the partition's resources. Commit nothing: the partition may have a new owner."""


class PartitionTask:
    """The task that processes the batches of one partition, one after another."""

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
        self._opened_in = 0  # number of rebalances at the last open
        self._queue: asyncio.Queue[Batch] = asyncio.Queue()
        self._idle = asyncio.Event()
        self.position: int | None = None
        self.processed_ms: int | None = None  # time of the last record processed, since the epoch
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda task: None if task.cancelled() else self._ended(task, fail))

    @property
    def busy(self) -> bool:
        """Whether the partition is opening or a batch is in progress."""
        return not self._idle.is_set()

    @staticmethod
    def _ended(task: "asyncio.Task[None]", fail: Callable[[BaseException], None]) -> None:
        if (error := task.exception()) is not None:
            fail(error)

    def submit(self, batch: Batch) -> None:
        """Queue a batch; fetching resumes when it has been processed."""
        self._queue.put_nowait(batch)

    async def drain(self, timeout_s: float) -> None:
        """Drop queued batches and wait for the current one, for at most `timeout_s`."""
        self._rebalances += 1
        while not self._queue.empty():
            self._resume(self._queue.get_nowait())
        if self.position is not None:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout_s)
            except TimeoutError:
                log.warning("batch still in progress at a rebalance", position=self.position)

    async def close(self) -> None:
        """Cancel the task and close the processor."""
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
        """Process what is new in the batch; return the new position."""
        if batch.from_offset > position:
            position = await self._recover_gap(batch, position)
            if batch.from_offset > position:
                return position
        fresh = batch.beginning_at(position)
        if fresh is None:
            return position
        await self._processor.process(fresh)
        self.processed_ms = fresh.records[-1].timestamp
        return fresh.next_offset

    async def _recover_gap(self, batch: Batch, position: int) -> int:
        """Seek to the records missing before the batch; return the new position."""
        if self._opened_in != self._rebalances:
            log.info("another worker may have owned the partition; reopening it", partition=batch.tp.partition)
            await self._processor.close()
            position = await self._open()
        return position if batch.from_offset <= position else await self._seek(batch.tp, position)


class PartitionTasks:
    """The tasks of all partitions that are assigned to this worker."""

    def __init__(
        self,
        make_processor: Callable[[TP], Processor],
        resume: Callable[[Batch], None],
        seek: Callable[[TP, int], Awaitable[int]],
        fail: Callable[[BaseException], None],
        *,
        drain_timeout_s: float = 4.0,
    ) -> None:
        self._make_processor = make_processor
        self._resume = resume
        self._seek = seek
        self._fail = fail
        self._drain_timeout_s = drain_timeout_s
        self._tasks: dict[TP, PartitionTask] = {}
        self._closed = False

    def submit(self, batch: Batch) -> None:
        """Pass a batch to its partition's task; drop it if the partition is not assigned."""
        task = self._tasks.get(batch.tp)
        if task is None:
            self._resume(batch)
        else:
            task.submit(batch)

    async def on_revoked(self) -> None:
        """Drain every task, close none: a rebalance begins."""
        await asyncio.gather(*(task.drain(self._drain_timeout_s) for task in self._tasks.values()))

    async def on_assigned(self, owned: set[TP]) -> None:
        """Close the tasks of lost partitions, open tasks for new ones, keep the rest: a rebalance is over."""
        lost = [self._tasks.pop(tp) for tp in set(self._tasks) - owned]
        await asyncio.gather(*(task.close() for task in lost))
        if self._closed:
            return
        for tp in owned - set(self._tasks):
            self._tasks[tp] = PartitionTask(self._make_processor(tp), self._resume, self._seek, self._fail)

    async def close(self) -> None:
        """Drain and close all tasks; ignore later assignments."""
        self._closed = True
        await self.on_revoked()
        await self.on_assigned(set())

    @property
    def open(self) -> dict[TP, int | None]:
        """The next offset of every owned partition; None while its state is being restored."""
        return {tp: task.position for tp, task in self._tasks.items()}

    @property
    def processed_ms(self) -> dict[TP, int]:
        """The time of the last record that each partition's task has processed, in ms since the epoch."""
        return {tp: task.processed_ms for tp, task in self._tasks.items() if task.processed_ms is not None}

    @property
    def busy(self) -> set[TP]:
        """The partitions that are opening or have a batch in progress."""
        return {tp for tp, task in self._tasks.items() if task.busy}
