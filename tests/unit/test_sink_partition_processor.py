"""However processes die, and however Kafka cuts the batches and assigns the partitions: every record is a row or a dead
letter, once.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from runtime.consumer.batch import Batch
from runtime.consumer.offset_committer import Committed
from sinks.joint_inserts import JointInserts
from sinks.partition_processor import PartitionProcessor
from sinks.row_encoder import EVENT_ROWS
from sinks.write_intent import WriteIntent, found
from tests.unit.sink_doubles import (
    EVENTS,
    DiedError,
    FakeCommitter,
    FakeDeadLetters,
    FakeRecord,
    FakeWriter,
    World,
    commit_together,
    never_dies,
    place,
    placed,
)

# Transactions leave gaps: their markers take offsets that no record has.
OFFSETS = [n for n in range(40) if n % 7 != 6]
PARTITIONS = (0, 3, 5)
PLACES = [place(partition, offset) for partition in PARTITIONS for offset in OFFSETS]


class Worker:
    """A sink process: its processors share inserts, and all die with it when `step` raises."""

    def __init__(self, world: World, step: Any = never_dies, partitions: Sequence[int] = PARTITIONS) -> None:
        self.world, self.step = world, step
        self.at_once = len(partitions)
        self.inserts = JointInserts(
            EVENTS.topic,
            EVENT_ROWS,
            writer=FakeWriter(world, step),
            commit_together=commit_together,  # type: ignore[arg-type]
            read_intent=read_intent,
            in_progress=lambda: self.at_once,
            max_rows=1_000,
        )
        self.processors = {partition: self._processor(partition) for partition in partitions}

    def _processor(self, partition: int) -> PartitionProcessor:
        ready = asyncio.Event()
        ready.set()
        return PartitionProcessor(
            TP(EVENTS.topic, partition),
            EVENT_ROWS,
            committer=FakeCommitter(self.world, self.step, partition),  # type: ignore[arg-type]
            inserts=self.inserts,
            dead_letters=FakeDeadLetters(self.world, self.step, partition),  # type: ignore[arg-type]
            ready=ready,
        )

    async def live(self, at: list[int]) -> None:
        """Take the partitions over, and write their records in batches cut at these indexes; raises `DiedError`."""
        tasks = [asyncio.create_task(self._write(partition, at)) for partition in self.processors]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self.inserts.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, partition: int, at: list[int]) -> None:
        processor = self.processors[partition]
        start = await processor.open()
        for piece in cut(partition, [offset for offset in OFFSETS if offset >= start], at):
            await processor.process(piece)
        self.at_once -= 1


async def read_intent(intent: WriteIntent) -> Mapping[int, Sequence[FakeRecord]]:
    """What Kafka has of it."""
    return {
        part.partition: [placed(part.partition, offset) for offset in OFFSETS if part.first <= offset < part.end]
        for part in intent.parts
    }


def dies_after(steps: int) -> Any:
    """A process that is killed after so many steps: nothing of it does anything more."""
    left = iter(range(steps))

    def step(_name: str) -> None:
        if next(left, None) is None:
            raise DiedError

    return step


def cut(partition: int, offsets: list[int], at: list[int]) -> list[Batch]:
    """The records in batches, cut at these indexes."""
    edges = [0, *sorted({n for n in at if 0 < n < len(offsets)}), len(offsets)]
    return [
        Batch(TP(EVENTS.topic, partition), [placed(partition, n) for n in offsets[a:b]], 1, offsets[a])
        for a, b in itertools.pairwise(edges)
        if a < b
    ]


cuts = st.lists(st.integers(1, len(OFFSETS)), max_size=6)
#: Groups of partitions: one worker each.
assignments = st.sampled_from([[PARTITIONS], [(0,), (3, 5)], [(0, 5), (3,)], [(0,), (3,), (5,)], [(5,)]])


@given(
    st.lists(st.tuples(assignments, st.lists(st.integers(0, 25), min_size=3, max_size=3), cuts), max_size=6),
    cuts,
    st.frozensets(st.sampled_from(PLACES), max_size=3),
)
async def test_every_record_once_whatever_dies(
    lives: list[tuple[list[tuple[int, ...]], list[int], list[int]]], last: list[int], poison: frozenset[int]
) -> None:
    """Kills between any two steps, other batches and other owners each time, bad rows among them: none lost, none
    twice.
    """
    world = World(poison)
    for assignment, steps, at in lives:
        for partitions, count in zip(assignment, steps, strict=False):
            with contextlib.suppress(DiedError):
                await Worker(world, dies_after(count), partitions).live(at)
    await Worker(world).live(last)
    assert sorted(world.stored) == sorted(set(PLACES) - poison)
    assert sorted(world.buried) == sorted(poison)
    assert world.offsets == dict.fromkeys(PARTITIONS, Committed(OFFSETS[-1] + 1, ""))


async def test_batches_of_several_partitions_are_one_insert() -> None:
    """One intent in the metadata of each partition, one token, and all offsets in the end."""
    world = World()
    await Worker(world).live([])
    assert len(world.tokens) == 1
    assert world.stored == PLACES


async def test_the_intent_is_durable_before_the_insert() -> None:
    """A process that dies right before its first insert leaves the exact offsets of all parts for the next one."""
    world = World()
    with pytest.raises(DiedError):
        await Worker(world, dies_after(2)).live([20])
    assert world.stored == []
    metadata = f"insert:0=0-{OFFSETS[19] + 1},3=0-{OFFSETS[19] + 1},5=0-{OFFSETS[19] + 1}"
    assert world.offsets == dict.fromkeys(PARTITIONS, Committed(0, metadata))


async def test_new_owners_of_the_parts_repeat_the_whole_insert() -> None:
    """A worker that owns one of the partitions stores the rows of all; the owner of the rest finds the token known."""
    world = World()
    with pytest.raises(DiedError):
        await Worker(world, dies_after(2)).live([20])
    intent = found(TP(EVENTS.topic, 3), *world.offsets[3])
    assert intent is not None
    assert await Worker(world, partitions=[3]).processors[3].open() == OFFSETS[19] + 1
    assert world.stored == [place(partition, offset) for partition in PARTITIONS for offset in OFFSETS[:20]]
    assert world.offsets[0] == Committed(0, intent.metadata)
    await Worker(world, partitions=[0, 5]).live([])
    assert world.tokens > {intent.token}
    await Worker(world).live([])
    assert sorted(world.stored) == PLACES


async def test_a_partition_that_is_lost_leaves_the_others_alone() -> None:
    """A batch is cancelled while its insert is under way: the others are committed, its own offset stays with the
    intent for the next owner.
    """
    world, inserting, may_go_on = World(), asyncio.Event(), asyncio.Event()
    worker = Worker(world)
    insert = worker.inserts._writer.insert

    async def held_up(*args: Any, **options: Any) -> None:
        inserting.set()
        await may_go_on.wait()
        await insert(*args, **options)

    worker.inserts._writer.insert = held_up  # type: ignore[method-assign]
    batches = {partition: cut(partition, OFFSETS, [])[0] for partition in PARTITIONS}
    tasks = {
        partition: asyncio.create_task(worker.processors[partition].process(batch))
        for partition, batch in batches.items()
    }
    await inserting.wait()
    tasks[3].cancel()
    await asyncio.wait([tasks[3]])
    may_go_on.set()
    await asyncio.gather(tasks[0], tasks[5])
    end = OFFSETS[-1] + 1
    assert (world.offsets[0], world.offsets[5]) == (Committed(end, ""), Committed(end, ""))
    assert world.offsets[3].offset == 0
    assert await Worker(world, partitions=[3]).processors[3].open() == end
    assert sorted(world.stored) == PLACES


async def test_a_rebalance_before_the_intent_makes_another_one() -> None:
    """The commit of the intent is refused once: each offset is confirmed, and the batches are written all the same."""
    world, refusals = World(), iter([False])
    worker = Worker(world)

    async def refused_once(commits: Any) -> bool:
        return next(refusals, True) and await commit_together(commits)

    worker.inserts._commit_together = refused_once
    await worker.live([])
    assert sorted(world.stored) == PLACES
    assert len(world.tokens) == 1
