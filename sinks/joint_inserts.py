"""Insert the batches of several partitions of a topic as one: every insert is a part that ClickHouse has to merge.

    batches of one fetch ──> intent of all, in one commit ──> one insert ──> offsets of all, in one commit

The parts of an insert stay together whatever happens to its partitions. A rebalance may give them to different workers:
each finds the same intent and repeats the same insert (`repeat`), and commits only what it owns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from runtime.consumer.batch import Batch, Record
from runtime.consumer.offset_committer import Committed, OffsetCommitter
from sinks.bisection import Inserter, Refusals, write
from sinks.row_encoder import RowEncoder
from sinks.write_intent import METADATA_MAX_BYTES, Part, WriteIntent

#: How long an insert waits for the other batches in progress, at most: one of them may be waiting for ClickHouse.
_GATHER_S, _GATHER_PAUSE_S = 0.05, 0.002
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
class _Waiting:
    committer: OffsetCommitter
    batch: Batch
    done: "asyncio.Future[Written | _Unplanned]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

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
        self._in_progress = in_progress
        self._max_rows = max_rows
        self._waiting: list[_Waiting] = []
        self._gathering: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(_INSERTS_AT_ONCE)
        self._inserts: set[asyncio.Task[None]] = set()
        self._inserting = 0  # batches
        self._repeats: dict[str, asyncio.Task[Refusals]] = {}

    async def write(self, committer: OffsetCommitter, batch: Batch) -> Written:
        """Write a batch, with those of other partitions; raises what makes it impossible.

        A cancelled call takes the batch out again, unless its intent is being committed: then the insert goes on, and
        the partition's next owner repeats it.
        """
        while True:
            waiting = _Waiting(committer, batch)
            self._waiting.append(waiting)
            if self._gathering is None or self._gathering.done():
                self._gathering = asyncio.create_task(self._gather())
            try:
                outcome = await waiting.done
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
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
        for task in (*self._inserts, *self._repeats.values(), *filter(None, [self._gathering])):
            task.cancel()

    async def _repeat(self, intent: WriteIntent) -> Refusals:
        records = await self._read_intent(intent)
        return await write(self._writer, self._rows, intent, intent.rows(records), repeated=True)

    async def _gather(self) -> None:
        """Begin one insert after the other, until no batch waits."""
        while self._waiting:
            await self._slots.acquire()
            await self._others()
            task = asyncio.create_task(self._guarded(self._take()))
            self._inserts.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._inserts.discard(task)
        self._slots.release()

    async def _others(self) -> None:
        """Wait for the other batches in progress, unless there is enough for an insert."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _GATHER_S
        while (  # noqa: ASYNC110 - what it waits for is counted elsewhere
            len(self._waiting) + self._inserting < self._in_progress()
            and sum(len(waiting.batch.records) for waiting in self._waiting) < self._max_rows
            and loop.time() < deadline_s
        ):
            await asyncio.sleep(_GATHER_PAUSE_S)

    def _take(self) -> list[_Waiting]:
        """Take as many batches as fit into one insert, at least one."""
        taken: list[_Waiting] = []
        rows = metadata_bytes = 0
        while self._waiting:
            waiting = self._waiting[0]
            rows += len(waiting.batch.records)
            metadata_bytes += len(str(waiting.part)) + 1
            if taken and (rows > self._max_rows or metadata_bytes > METADATA_MAX_BYTES - 10):
                break
            taken.append(self._waiting.pop(0))
        return sorted(taken, key=lambda waiting: waiting.part)

    async def _guarded(self, taken: Sequence[_Waiting]) -> None:
        if not taken:
            return
        self._inserting += len(taken)
        try:
            await self._insert(taken)
        except Exception as error:
            for waiting in taken:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
        finally:
            self._inserting -= len(taken)

    async def _insert(self, taken: Sequence[_Waiting]) -> None:
        """Commit the intent, insert, commit the offsets."""
        intent = WriteIntent(self._topic, tuple(waiting.part for waiting in taken))
        plan = [(waiting.committer, Committed(waiting.part.first, intent.metadata)) for waiting in taken]
        if not await self._commit_together(plan):
            _resolve(taken, _Unplanned(intent))
            return
        rows = intent.rows({waiting.part.partition: waiting.batch.records for waiting in taken})
        refusals = await write(self._writer, self._rows, intent, rows, repeated=False)
        whole = [w for w in taken if not w.done.done() and w.part.partition not in refusals]
        ends = [(waiting.committer, Committed(waiting.part.end, "")) for waiting in whole]
        committed = await self._commit_together(ends) if ends else False
        for waiting in taken:
            _resolve([waiting], Written(intent, refusals, committed and waiting in whole))


def _resolve(taken: Sequence[_Waiting], outcome: Written | _Unplanned) -> None:
    for waiting in taken:
        if not waiting.done.done():
            waiting.done.set_result(outcome)
