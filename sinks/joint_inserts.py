"""Insert the batches of several partitions of a topic as one: every insert is a part that ClickHouse has to merge.

    batches of one fetch ──> intent of all, in one commit ──> one insert ──> offsets of all, in one commit

The parts of an insert stay together whatever happens to its partitions. A rebalance may give them to different workers:
each finds the same intent and repeats the same insert (`repeat`), and commits only what it owns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.consumer.batch import Batch, Record
from runtime.consumer.coalescer import Coalescer
from runtime.consumer.offset_committer import Committed, OffsetCommitter
from sinks.bisection import Inserter, Refusals, write
from sinks.row_encoder import RowEncoder
from sinks.write_intent import METADATA_MAX_BYTES, Part, WriteIntent

#: How long a batch waits for the others in progress, at most: one of them may be waiting for ClickHouse.
_GATHER_S = 0.05
_INSERTS_AT_ONCE = 2

#: Commit in one request what each committer is to commit; False if one of them has to be confirmed first.
CommitTogether = Callable[[Sequence[tuple[OffsetCommitter, Committed]]], Awaitable[bool]]
#: Read an intent's records from Kafka, by partition.
ReadIntent = Callable[[WriteIntent], Awaitable[Mapping[int, Sequence[Record]]]]


@dataclass(frozen=True, slots=True)
class Written:
    """The insert of a batch is done."""

    intent: WriteIntent
    refusals: Refusals
    committed: bool  # whether the offset behind the batch is committed


@dataclass(frozen=True, slots=True)
class _Unplanned:
    """No insert was begun: the generation had changed, and the intent may be committed or not."""

    intent: WriteIntent


@dataclass(eq=False, slots=True)
class _Insertion:
    """A batch, and the committer of its partition."""

    committer: OffsetCommitter
    batch: Batch
    is_lost: bool = False  # its partition is: its next owner commits, and repeats the insert before

    @property
    def rows(self) -> int:
        return len(self.batch.records)

    @property
    def part(self) -> Part:
        return Part(self.batch.tp.partition, self.batch.first_offset, self.batch.next_offset)


class JointInserts:
    """The inserts of one topic into its table; `in_progress` counts its batches that were fetched and not committed."""

    def __init__(
        self,
        topic: str,
        rows: RowEncoder,
        *,
        writer: Inserter,
        commit_together: CommitTogether,
        read_intent: ReadIntent,
        in_progress: Callable[[], int],
        max_rows: int,
    ) -> None:
        self._topic = topic
        self._rows = rows
        self._writer = writer
        self._commit_together = commit_together
        self._read_intent = read_intent
        self._max_rows = max_rows
        self._insertions = Coalescer[_Insertion, Written | _Unplanned](
            self._insert,
            in_progress=in_progress,
            size_of=lambda insertion: insertion.rows,
            enough=max_rows,
            wait_s=_GATHER_S,
            fit=self._fit,
            at_once=_INSERTS_AT_ONCE,
        )
        self._repeats: dict[str, asyncio.Task[Refusals]] = {}

    async def write(self, committer: OffsetCommitter, batch: Batch) -> Written:
        """Write a batch, with those of other partitions; raises what makes it impossible.

        A cancelled call takes the batch out again, unless its intent is being committed: then the insert goes on, and
        the partition's next owner repeats it.
        """
        while True:
            insertion = _Insertion(committer, batch)
            try:
                outcome = await self._insertions.submit(insertion)
            except asyncio.CancelledError:
                insertion.is_lost = True
                raise
            if isinstance(outcome, Written):
                return outcome
            await committer.confirm(Committed(batch.first_offset, outcome.intent.metadata))

    async def repeat(self, intent: WriteIntent) -> Refusals:
        """Make an intent's insert again, once for all of its partitions that open now."""
        if intent.token not in self._repeats:
            task = self._repeats[intent.token] = asyncio.create_task(self._repeat(intent))
            task.add_done_callback(lambda _: self._repeats.pop(intent.token))
        return await asyncio.shield(self._repeats[intent.token])

    def close(self) -> None:
        """Cancel what is under way."""
        self._insertions.close()
        for task in self._repeats.values():
            task.cancel()

    async def _repeat(self, intent: WriteIntent) -> Refusals:
        records = await self._read_intent(intent)
        return await write(self._writer, self._rows, intent, intent.rows(records), repeated=True)

    def _fit(self, insertions: Sequence[_Insertion]) -> bool:
        """Whether the batches fit into one insert, and their intent into the offsets' metadata."""
        metadata_bytes = sum(len(str(insertion.part)) + 1 for insertion in insertions)
        rows = sum(insertion.rows for insertion in insertions)
        return rows <= self._max_rows and metadata_bytes <= METADATA_MAX_BYTES - 10

    async def _insert(self, insertions: Sequence[_Insertion]) -> list[Written | _Unplanned]:
        """Commit the intent, insert, commit the offsets."""
        intent = WriteIntent(self._topic, tuple(sorted(insertion.part for insertion in insertions)))
        plan = [(one.committer, Committed(one.part.first, intent.metadata)) for one in insertions]
        if not await self._commit_together(plan):
            return [_Unplanned(intent)] * len(insertions)
        rows = intent.rows({one.part.partition: one.batch.records for one in insertions})
        refusals = await write(self._writer, self._rows, intent, rows, repeated=False)
        whole = [one for one in insertions if not one.is_lost and one.part.partition not in refusals]
        ends = [(one.committer, Committed(one.part.end, "")) for one in whole]
        committed = await self._commit_together(ends) if ends else False
        return [Written(intent, refusals, committed and one in whole) for one in insertions]
