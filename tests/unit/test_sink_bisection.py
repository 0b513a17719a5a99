"""A row that ClickHouse refuses is set apart alone, by the same inserts every time."""

from hypothesis import given
from hypothesis import strategies as st

from sinks.bisection import write
from sinks.row_encoder import EVENT_ROWS
from sinks.write_intent import WriteIntent
from tests.unit.sink_doubles import EVENTS, FakeWriter, World, record

OFFSETS = range(100, 140)


@given(st.frozensets(st.sampled_from(OFFSETS)))
async def test_exactly_the_poison_rows_are_refused(poison: frozenset[int]) -> None:
    """Whichever rows are bad: they come back in order with the reason, all their neighbours are stored once."""
    world = World(poison)
    refusals = await write(
        FakeWriter(world), EVENT_ROWS, WriteIntent(EVENTS, 100, 140), [record(n) for n in OFFSETS], repeated=False
    )
    assert [refusal.record.offset for refusal in refusals] == sorted(poison)
    assert sorted(world.stored) == sorted(set(OFFSETS) - poison)
    assert all("VIOLATED_CONSTRAINT" in refusal.why for refusal in refusals)


@given(st.frozensets(st.sampled_from(OFFSETS)))
async def test_a_repeat_makes_the_same_inserts(poison: frozenset[int]) -> None:
    """The halves and their tokens depend on the records alone: doing it all again stores nothing more."""
    world = World(poison)
    intent, records = WriteIntent(EVENTS, 100, 140), [record(n) for n in OFFSETS]
    await write(FakeWriter(world), EVENT_ROWS, intent, records, repeated=True)
    stored = list(world.stored)
    await write(FakeWriter(world), EVENT_ROWS, intent, records, repeated=True)
    assert world.stored == stored


async def test_a_good_batch_is_one_insert() -> None:
    """Without a bad row there is one insert, under the intent's own token."""
    world = World()
    intent = WriteIntent(EVENTS, 100, 140)
    assert await write(FakeWriter(world), EVENT_ROWS, intent, [record(n) for n in OFFSETS], repeated=False) == []
    assert world.tokens == {intent.token}
