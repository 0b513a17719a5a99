"""One lane a partition: its batches are processed in order, those of different partitions side by side.

A lane is opened when its partition is assigned and closed when it is not any more; over a rebalance that leaves the
partition here, the lane and its state stay.

Around a rebalance fetched batches are dropped here and there: by the consumer, by the stream, by the lane. So a lane
goes by offsets alone: a batch that is complete from an offset beyond the lane's position has lost something before it.
It is dropped, and fetching goes back to the position. If there was a rebalance since the lane was opened, somebody else
may have owned the partition in between: then the lane is opened anew first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from faust.types import TP

from runtime.batches import Batch

log = structlog.get_logger()


class Processor(Protocol):
    """What a lane drives; an exception from any of these ends the process."""

    async def open(self) -> int:
        """Take the partition over; returns the offset of the first record to process."""

    async def process(self, batch: Batch) -> None:
        """Process the batch and commit it: when this returns, it is done for good."""

    async def close(self) -> None:
        """Let go of the partition."""


class Lane:
    """The batches of one partition, one after the other."""

    def __init__(
        self,
        processor: Processor,
        release: Callable[[Batch], None],
        rewind: Callable[[TP, int], Awaitable[int]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._processor = processor
        self._release = release
        self._rewind = rewind
        self._rebalances = 0
        self._opened_in = 0  # after which of the rebalances
        self._waiting: asyncio.Queue[Batch] = asyncio.Queue()
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

    def feed(self, batch: Batch) -> None:
        """Queue a batch; it is released when it has been processed."""
        self._waiting.put_nowait(batch)

    async def quiesce(self, timeout_s: float) -> None:
        """Drop what waits and let the batch under way finish, for at most `timeout_s`."""
        self._rebalances += 1
        while not self._waiting.empty():
            self._release(self._waiting.get_nowait())
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
            batch = await self._waiting.get()
            self._idle.clear()
            try:
                position = self.position = await self._advance(batch, position)
            finally:
                self._release(batch)

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
        return position if batch.from_offset <= position else await self._rewind(batch.tp, position)


class Lanes:
    """The lanes of all partitions that this worker owns."""

    def __init__(
        self,
        make: Callable[[TP], Processor],
        release: Callable[[Batch], None],
        rewind: Callable[[TP, int], Awaitable[int]],
        fail: Callable[[BaseException], None],
        *,
        quiesce_timeout_s: float = 4.0,
    ) -> None:
        self._make = make
        self._release = release
        self._rewind = rewind
        self._fail = fail
        self._quiesce_timeout_s = quiesce_timeout_s
        self._lanes: dict[TP, Lane] = {}
        self._closed = False

    def feed(self, batch: Batch) -> None:
        """Hand a batch to its partition's lane; one for a partition that is not ours is dropped."""
        lane = self._lanes.get(batch.tp)
        if lane is None:
            self._release(batch)
        else:
            lane.feed(batch)

    async def on_revoked(self) -> None:
        """A rebalance begins: every lane comes to rest, none is closed yet."""
        await asyncio.gather(*(lane.quiesce(self._quiesce_timeout_s) for lane in self._lanes.values()))

    async def on_assigned(self, owned: set[TP]) -> None:
        """A rebalance is over: close the lanes of lost partitions, open those of new ones, keep the rest."""
        lost = [self._lanes.pop(tp) for tp in set(self._lanes) - owned]
        await asyncio.gather(*(lane.close() for lane in lost))
        if self._closed:
            return
        for tp in owned - set(self._lanes):
            self._lanes[tp] = Lane(self._make(tp), self._release, self._rewind, self._fail)

    async def close(self) -> None:
        """Finish what is under way, then let go of everything; what is assigned from now on is left alone."""
        self._closed = True
        await self.on_revoked()
        await self.on_assigned(set())

    @property
    def open(self) -> dict[TP, int | None]:
        """The next offset of every owned partition; None while its state is being restored."""
        return {tp: lane.position for tp, lane in self._lanes.items()}

    @property
    def busy(self) -> set[TP]:
        """The partitions that are being opened or have a batch under way."""
        return {tp for tp, lane in self._lanes.items() if lane.busy}
