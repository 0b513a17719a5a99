"""A partition's way into its table: intent → insert → commit, batch after batch, each exactly once.

    read the committed offset, and the intent that was left unfinished
    for each batch:  commit its first offset with the intent   (durable: what the insert will be)
                     insert with the intent's token            (waits for ClickHouse; repeated, it does nothing)
                     commit its next offset                  (with dead letters for refused rows, in one transaction)

Whatever dies between these lines, the next owner begins at the first one and makes the same insert again.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from faust.types import TP

from runtime.consumer.batch import Batch, Record
from runtime.platform import metrics
from schemas import topics
from sinks import write_intent
from sinks.bisection import Inserter, Refusal, write
from sinks.dead_letters import STAGE, DeadLetterPublisher
from sinks.offset_committer import OffsetCommitter
from sinks.row_encoder import RowEncoder
from sinks.write_intent import WriteIntent

log = structlog.get_logger()


class PartitionProcessor:
    """The processor of one partition (see `runtime.consumer.partition_tasks.Processor`)."""

    def __init__(
        self,
        tp: TP,
        rows: RowEncoder,
        *,
        committer: OffsetCommitter,
        store: Inserter,
        dead_letters: DeadLetterPublisher,
        ready: asyncio.Event,
        pause_s: Callable[[Batch], float],
    ) -> None:
        self._tp = tp
        self._rows = rows
        self._committer = committer
        self._writer = store
        self._dead_letters = dead_letters
        self._ready = ready
        self._pause_s = pause_s
        self._unfinished: WriteIntent | None = None
        self._gathered: list[Record] = []

    async def open(self) -> int:
        """Where to go on: the committed offset, from which an unfinished intent is read again."""
        await self._ready.wait()
        self._gathered = []
        self._unfinished = await self._unfinished_intent()
        if self._unfinished is not None:
            # Its last owner may be about to commit it with dead letters: no longer, and then it may be finished.
            await self._dead_letters.fence_previous_owner()
            self._unfinished = await self._unfinished_intent()
        committed = self._committer.committed
        log.info("partition taken over", topic=self._tp.topic, partition=self._tp.partition, offset=committed.offset,
                 unfinished=self._unfinished and self._unfinished.token)  # fmt: skip
        return committed.offset

    async def process(self, batch: Batch) -> None:
        """Store the batch, after finishing an unfinished intent once all of it has been read again."""
        rest = await self._finish(batch) if self._unfinished else batch
        if rest is None:
            return
        intent = WriteIntent(self._tp, rest.first_offset, rest.next_offset)
        await self._committer.commit(intent.first, intent.metadata)
        await self._execute(intent, rest.records, repeated=False)
        await asyncio.sleep(self._pause_s(rest))

    async def close(self) -> None:
        """Let go: nothing is held that another worker would not find."""
        await self._dead_letters.close()

    async def _unfinished_intent(self) -> WriteIntent | None:
        committed = await self._committer.read()
        return write_intent.found(self._tp, committed.offset, committed.metadata)

    async def _finish(self, batch: Batch) -> Batch | None:
        """Gather the unfinished intent's records, carry it out when they are all there; returns what comes after it."""
        intent = self._unfinished
        assert intent is not None  # noqa: S101 - the caller's condition, for the type checker
        self._gathered += [record for record in batch.records if record.offset < intent.end]
        if batch.next_offset < intent.end:
            return None
        await self._execute(intent, self._gathered, repeated=True)
        self._unfinished, self._gathered = None, []
        return batch.beginning_at(intent.end)

    async def _execute(self, intent: WriteIntent, records: Sequence[Record], *, repeated: bool) -> None:
        refusals = await write(self._writer, self._rows, intent, records, repeated=repeated) if records else []
        if refusals:
            await self._dead_letter(refusals, intent.end)
        else:
            await self._committer.commit(intent.end)

    async def _dead_letter(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        for refusal in refusals:
            log.error("row refused: to the dead letters", topic=self._tp.topic, partition=self._tp.partition,
                      offset=refusal.record.offset, why=refusal.why)  # fmt: skip
            if self._tp.topic == topics.DEAD_LETTER and f'"stage":"{STAGE}"'.encode() in (refusal.record.value or b""):
                raise RuntimeError(f"ClickHouse refuses a dead letter of its own making: {refusal.why}")
        await self._dead_letters.fence_previous_owner()
        await self._committer.confirm()
        await self._dead_letters.publish(refusals, next_offset)
        self._committer.follow(next_offset)
        metrics.SINK_REFUSED.metric.labels(self._rows.table.name).inc(len(refusals))
