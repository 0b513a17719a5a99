"""However a process dies and however Kafka cuts the batches: every record is a row or a dead letter, once."""

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.consumer.batch import Batch
from sinks.partition_processor import PartitionProcessor
from sinks.row_encoder import EVENT_ROWS
from tests.unit.sink_doubles import (
    EVENTS,
    DiedError,
    FakeCommitter,
    FakeDeadLetters,
    FakeWriter,
    World,
    batch,
    never_dies,
)

# Transactions leave gaps: their markers take offsets that no record has.
OFFSETS = [n for n in range(60) if n % 7 != 6]


def partition(world: World, step: Any = never_dies) -> PartitionProcessor:
    """A process's view of the partition; it dies when `step` raises."""
    ready = asyncio.Event()
    ready.set()
    return PartitionProcessor(
        EVENTS,
        EVENT_ROWS,
        committer=FakeCommitter(world, step),  # type: ignore[arg-type]
        writer=FakeWriter(world, step),
        dead_letters=FakeDeadLetters(world, step),  # type: ignore[arg-type]
        ready=ready,
        pause_s=lambda _: 0,
    )


def dies_after(steps: int) -> Any:
    """A process that is killed after so many steps."""
    left = iter(range(steps))

    def step(_name: str) -> None:
        if next(left, None) is None:
            raise DiedError

    return step


def cut(offsets: list[int], at: list[int]) -> list[Batch]:
    """The records in batches, cut at these indexes."""
    edges = [0, *sorted({n for n in at if 0 < n < len(offsets)}), len(offsets)]
    return [batch(*offsets[a:b]) for a, b in itertools.pairwise(edges) if a < b]


async def live(world: World, step: Any, at: list[int]) -> None:
    """One process: takes the partition over, goes on from the committed offset, and may die."""
    processor = partition(world, step)
    start = await processor.open()
    for piece in cut([offset for offset in OFFSETS if offset >= start], at):
        await processor.process(piece)


cuts = st.lists(st.integers(1, len(OFFSETS)), max_size=6)


@given(
    st.lists(st.tuples(st.integers(0, 25), cuts), max_size=8), cuts, st.frozensets(st.sampled_from(OFFSETS), max_size=3)
)
async def test_every_record_once_whatever_dies(
    lives: list[tuple[int, list[int]]], last: list[int], poison: frozenset[int]
) -> None:
    """Kills between any two steps, batches cut differently each time, bad rows among them: none lost, none twice."""
    world = World(poison)
    for steps, at in lives:
        with contextlib.suppress(DiedError):
            await live(world, dies_after(steps), at)
    await live(world, never_dies, last)
    assert sorted(world.stored) == sorted(set(OFFSETS) - poison)
    assert sorted(world.buried) == sorted(poison)
    assert world.committed == (OFFSETS[-1] + 1, "")


async def test_the_plan_is_durable_before_the_insert() -> None:
    """A process that dies right before its first insert leaves the exact range for the next one."""
    world = World()
    with pytest.raises(DiedError):
        await live(world, dies_after(2), [20])
    assert world.stored == []
    assert world.committed == (0, f"insert-to:{OFFSETS[19] + 1}")


async def test_an_unfinished_plan_waits_until_all_of_it_is_read_again() -> None:
    """An intent's records come in other batches than the first time; nothing is inserted before the last is there."""
    world = World()
    with pytest.raises(DiedError):
        await live(world, dies_after(2), [20])
    processor = partition(world)
    assert await processor.open() == 0
    await processor.process(batch(*OFFSETS[:5]))
    assert world.stored == []
    await processor.process(batch(*OFFSETS[5:40]))
    assert world.stored == OFFSETS[:40]
    assert len(world.tokens) == 2
