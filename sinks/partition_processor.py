"""Write a partition to its table batch by batch, each exactly once: intent → insert → commit.

    read the committed offset; repeat the insert of an unfinished intent
    for each batch:  commit its first offset with the intent   (makes the insert's offsets durable)
                     insert with the intent's token            (waits for ClickHouse; a repeat stores nothing)
                     commit its next offset                    (with dead letters for refused rows, in one transaction)

The batches of several partitions share an insert, and a commit (`sinks.joint_inserts`). Whatever fails in between, the
next owner starts at the first line and repeats the same insert.
"""

import asyncio
from collections.abc import Sequence

import structlog
from faust.types import TP

from runtime.consumer.batch import Batch
from runtime.consumer.offset_committer import OffsetCommitter
from runtime.platform import metrics
from schemas import topics
from sinks import write_intent
from sinks.bisection import Refusal
from sinks.dead_letters import STAGE, DeadLetterPublisher
from sinks.joint_inserts import JointInserts
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
        inserts: JointInserts,
        dead_letters: DeadLetterPublisher,
        ready: asyncio.Event,
    ) -> None:
        self._tp = tp
        self._rows = rows
        self._committer = committer
        self._inserts = inserts
        self._dead_letters = dead_letters
        self._ready = ready

    async def open(self) -> int:
        """Repeat the insert of an unfinished intent, if there is one; return the committed offset."""
        await self._ready.wait()
        unfinished = await self._unfinished_intent()
        if unfinished is not None:
            # The previous owner may be committing it with dead letters: fence it, then see whether it is finished.
            await self._dead_letters.fence_previous_owner()
            unfinished = await self._unfinished_intent()
        log.info("partition taken over", topic=self._tp.topic, partition=self._tp.partition,
                 offset=self._committer.committed.offset, unfinished=unfinished and unfinished.token)  # fmt: skip
        if unfinished is not None:
            refusals = await self._inserts.repeat(unfinished)
            end = unfinished.part_of(self._tp.partition).end
            await self._commit(refusals.get(self._tp.partition, ()), end)
        return self._committer.committed.offset

    async def process(self, batch: Batch) -> None:
        """Write the batch and commit its next offset."""
        written = await self._inserts.write(self._committer, batch)
        if not written.committed:
            await self._commit(written.refusals.get(self._tp.partition, ()), batch.next_offset)

    async def close(self) -> None:
        """Close the dead-letter producer; all other state is in Kafka and ClickHouse."""
        await self._dead_letters.close()

    async def _unfinished_intent(self) -> WriteIntent | None:
        committed = await self._committer.read()
        return write_intent.found(self._tp, committed.offset, committed.metadata)

    async def _commit(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        if refusals:
            await self._dead_letter(refusals, next_offset)
        else:
            await self._committer.commit(next_offset)

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
