"""Write a partition to its table batch by batch, each exactly once: intent → insert → commit.

    read the committed offset and an unfinished intent
    for each batch:  commit its first offset with the intent   (makes the insert's offset range durable)
                     insert with the intent's token            (waits for ClickHouse; a repeat stores nothing)
                     commit its next offset                    (with dead letters for refused rows, in one transaction)

Whatever fails in between, the next owner starts at the first line and repeats the same insert.
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
        writer: Inserter,
        dead_letters: DeadLetterPublisher,
        ready: asyncio.Event,
        pause_s: Callable[[Batch], float],
    ) -> None:
        self._tp = tp
        self._rows = rows
        self._committer = committer
        self._writer = writer
        self._dead_letters = dead_letters
        self._ready = ready
        self._pause_s = pause_s
        self._unfinished: WriteIntent | None = None
        self._unfinished_records: list[Record] = []

    async def open(self) -> int:
        """Return the committed offset; an unfinished intent's records are read again from there."""
        await self._ready.wait()
        self._unfinished_records = []
        self._unfinished = await self._unfinished_intent()
        if self._unfinished is not None:
            # The previous owner may be committing it with dead letters: fence it, then see whether it is finished.
            await self._dead_letters.fence_previous_owner()
            self._unfinished = await self._unfinished_intent()
        committed = self._committer.committed
        log.info("partition taken over", topic=self._tp.topic, partition=self._tp.partition, offset=committed.offset,
                 unfinished=self._unfinished and self._unfinished.token)  # fmt: skip
        return committed.offset

    async def process(self, batch: Batch) -> None:
        """Write the batch; first finish an unfinished intent, once all its records have been read again."""
        rest = await self._finish(batch) if self._unfinished else batch
        if rest is None:
            return
        intent = WriteIntent(self._tp, rest.first_offset, rest.next_offset)
        await self._committer.commit(intent.first, intent.metadata)
        await self._execute(intent, rest.records, repeated=False)
        await asyncio.sleep(self._pause_s(rest))

    async def close(self) -> None:
        """Close the dead-letter producer; all other state is in Kafka and ClickHouse."""
        await self._dead_letters.close()

    async def _unfinished_intent(self) -> WriteIntent | None:
        committed = await self._committer.read()
        return write_intent.found(self._tp, committed.offset, committed.metadata)

    async def _finish(self, batch: Batch) -> Batch | None:
        """Collect the unfinished intent's records and execute it when complete; return the rest of the batch."""
        intent = self._unfinished
        assert intent is not None  # noqa: S101 - narrows the type; the caller checks it
        self._unfinished_records += [record for record in batch.records if record.offset < intent.end]
        if batch.next_offset < intent.end:
            return None
        await self._execute(intent, self._unfinished_records, repeated=True)
        self._unfinished, self._unfinished_records = None, []
        return batch.beginning_at(intent.end)

    async def _execute(self, intent: WriteIntent, records: Sequence[Record], *, repeated: bool) -> None:
        refusals = await write(self._writer, self._rows, intent, records, repeated=repeated) if records else []
        if refusals:
            await self._dead_letter(refusals, intent.end)
        else:
            await self._committer.commit(intent.end)

    async def _dead_letter(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        for refusal in refusals:
            log.error("ClickHouse refused a row; dead-lettering it", topic=self._tp.topic,
                      partition=self._tp.partition, offset=refusal.record.offset, why=refusal.why)  # fmt: skip
            if self._tp.topic == topics.DEAD_LETTER and f'"stage":"{STAGE}"'.encode() in (refusal.record.value or b""):
                raise RuntimeError(f"ClickHouse refused a dead letter of the sink: {refusal.why}")
        await self._dead_letters.fence_previous_owner()
        await self._committer.confirm()
        await self._dead_letters.publish(refusals, next_offset)
        self._committer.follow(next_offset)
        metrics.SINK_REFUSED.metric.labels(self._rows.table.name).inc(len(refusals))
