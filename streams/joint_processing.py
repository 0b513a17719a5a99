"""Process the batches of all partitions that arrive together in one call.

A fetch returns a batch for each of many partitions, and they are handed on one by one. A call of the processor costs as
much as some dozen events, so it waits, for a moment, for the others.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.consumer.batch import Record
from streams.batch_processor import BatchProcessor, BatchResult, PartitionState, RawBatch

#: Records that are worth a call at once; beyond them, waiting for more batches saves nothing.
_ENOUGH_RECORDS = 1_000
#: Batches are on their way for some milliseconds; those of a partition that is being restored, for much longer.
_WAIT_S, _PAUSE_S = 0.05, 0.001


@dataclass(eq=False, slots=True)
class _Waiting:
    batch: RawBatch
    done: "asyncio.Future[BatchResult]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class JointProcessing:
    """The processor of a worker's batches. `arriving` counts those that were fetched and are not processed yet."""

    def __init__(self, processor: BatchProcessor, arriving: Callable[[], int]) -> None:
        self._processor = processor
        self._arriving = arriving
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None

    async def process(self, partition: PartitionState, records: Sequence[Record]) -> BatchResult:
        """Return the outcome of these records, in order; there is at least one. A partition calls again when it has it.

        A cancelled call takes the records out again, unless they are being processed.
        """
        waiting = _Waiting(RawBatch(partition, records))
        self._waiting.append(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        try:
            return await waiting.done
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def _run(self) -> None:
        """Process what waits, until nothing does."""
        while self._waiting:
            await self._gather()
            taken = self._take()
            try:
                results = self._processor.process([waiting.batch for waiting in taken]) if taken else []
            except Exception as error:
                for waiting in taken:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
            else:
                for waiting, result in zip(taken, results, strict=True):
                    if not waiting.done.done():
                        waiting.done.set_result(result)

    async def _gather(self) -> None:
        """Wait for the batches that are arriving, for a moment at most."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _WAIT_S
        while (  # noqa: ASYNC110 - what it waits for is counted elsewhere
            0 < len(self._waiting) < self._arriving()
            and sum(len(waiting.batch.records) for waiting in self._waiting) < _ENOUGH_RECORDS
            and loop.time() < until_s
        ):
            await asyncio.sleep(_PAUSE_S)

    def _take(self) -> list[_Waiting]:
        """Take batches until there is enough; at least one, if one waits."""
        taken: list[_Waiting] = []
        records = 0
        while self._waiting and records < _ENOUGH_RECORDS:
            waiting = self._waiting.pop(0)
            records += len(waiting.batch.records)
            taken.append(waiting)
        return taken
