"""A row that ClickHouse refuses is set apart alone, by the same inserts every time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.bisection import write
from sinks.row_encoder import EVENT_ROWS
from sinks.write_intent import Part, WriteIntent
from tests.unit.sink_doubles import EVENTS, FakeWriter, World, place, placed

OFFSETS = range(100, 120)
PARTITIONS = (3, 4)
ONE = WriteIntent(EVENTS.topic, (Part(3, 100, 120),))
TWO = WriteIntent(EVENTS.topic, (Part(3, 100, 120), Part(4, 100, 120)))
PLACES = [place(partition, offset) for partition in PARTITIONS for offset in OFFSETS]

rows = TWO.rows({partition: [placed(partition, n) for n in OFFSETS] for partition in PARTITIONS})


@given(st.frozensets(st.sampled_from(PLACES)))
async def test_exactly_the_poison_rows_are_refused(poison: frozenset[int]) -> None:
    """Whichever rows are bad: they come back by partition and in order with the reason, their neighbours are stored."""
    world = World(poison)
    refused = await write(FakeWriter(world), EVENT_ROWS, TWO, rows, repeated=False)
    found = [place(partition, refusal.record.offset) for partition in sorted(refused) for refusal in refused[partition]]
    assert found == sorted(poison)
    assert sorted(world.stored) == sorted(set(PLACES) - poison)
    assert all("VIOLATED_CONSTRAINT" in refusal.why for of_partition in refused.values() for refusal in of_partition)


@given(st.frozensets(st.sampled_from(PLACES)))
async def test_a_repeat_makes_the_same_inserts(poison: frozenset[int]) -> None:
    """The halves and their tokens depend on the records alone: doing it all again stores nothing more."""
    world = World(poison)
    await write(FakeWriter(world), EVENT_ROWS, TWO, rows, repeated=True)
    stored = list(world.stored)
    await write(FakeWriter(world), EVENT_ROWS, TWO, rows, repeated=True)
    assert world.stored == stored


@pytest.mark.parametrize("intent", [ONE, TWO])
async def test_a_good_batch_is_one_insert(intent: WriteIntent) -> None:
    """Without a bad row there is one insert, under the intent's own token."""
    world = World()
    of_intent = [row for row in rows if row.partition in {part.partition for part in intent.parts}]
    assert await write(FakeWriter(world), EVENT_ROWS, intent, of_intent, repeated=False) == {}
    assert world.tokens == {intent.token}
