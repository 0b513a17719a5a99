"""What `sinks.completeness` proves holds in every history, and nothing stands still while a pipeline is idle."""

import random
from dataclasses import dataclass, field

from aiokafka.structs import TopicPartition
from hypothesis import event, given
from hypothesis import strategies as st

from runtime.platform import settings
from schemas import topics
from sinks.completeness import CLOCK_SKEW_US, GATES, Completeness, append_delay_us

_DELAY = 5


@dataclass
class World:
    """One partition of the pipeline: each topic is a list of arrivals, and None for a marker or an aborted record."""

    now: int = 100
    raw: list[int | None] = field(default_factory=list)
    events: list[int | None] = field(default_factory=list)
    letters: list[int | None] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)  # at the ingress, and not appended yet
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GATES, 0))
    visible: set[int] = field(default_factory=set)  # positions in `raw` that are rows or letters in ClickHouse
    by_event: list[int | None] = field(default_factory=list)  # position in `raw` of each event
    by_letter: list[int | None] = field(default_factory=list)

    def ends(self) -> dict[TopicPartition, int]:
        records = {topics.RAW: self.raw, topics.EVENTS: self.events, topics.DEAD_LETTER: self.letters}
        return {TopicPartition(topic, 0): len(of) for topic, of in records.items()}

    def finished(self, awaited: dict[TopicPartition, int]) -> set[TopicPartition]:
        """What the readers have committed, and what only markers are missing of."""
        return {tp for tp, end in awaited.items() if not any(self._rest(tp.topic, self.done[tp.topic], end))}

    def _rest(self, topic: str, begin: int, end: int) -> list[bool]:
        of = {topics.RAW: self.raw, topics.EVENTS: self.by_event, topics.DEAD_LETTER: self.by_letter}[topic]
        return [record is not None for record in of[begin:end]]

    # --- what may happen ---

    def wait(self, steps: int) -> None:
        """Time passes; what was accepted is appended in time."""
        for _ in range(steps):
            self.now += 1
            while self.arrived and self.arrived[0] <= self.now - _DELAY:
                self.append(1)

    def accept(self, count: int) -> None:
        self.arrived += [self.now] * count

    def append(self, count: int) -> None:
        """The oldest that wait, or the newest first: requests overtake each other."""
        for _ in range(min(count, len(self.arrived))):
            self.raw.append(self.arrived.pop(0 if count % 2 else -1))

    def stream(self, count: int) -> None:
        """A transaction of the streams: events, and each third one a dead letter or a duplicate."""
        first = self.done[topics.RAW]
        for position in range(first, min(first + count, len(self.raw))):
            if position % 3 == 0:
                self.by_letter.append(position)
                self.letters.append(self.raw[position])
            elif position % 3 == 1 or position % 2:
                self.by_event.append(position)
                self.events.append(self.raw[position])
            else:
                self.visible.add(position)  # a duplicate: there is nothing to store
            self.done[topics.RAW] = position + 1
        self._mark(self.by_event, self.events)
        self._mark(self.by_letter, self.letters)

    def abort(self, _count: int) -> None:
        """A transaction that left a record without an outcome."""
        self._mark(self.by_event, self.events)

    @staticmethod
    def _mark(by: list[int | None], records: list[int | None]) -> None:
        by.append(None)
        records.append(None)

    def store(self, count: int) -> None:
        """The sink stores events; ClickHouse refuses each fifth, which becomes a dead letter."""
        for position in self._read(topics.EVENTS, self.by_event, count):
            if position % 5 == 0:
                self.by_letter.append(position)
                self.letters.append(self.raw[position])
                self._mark(self.by_letter, self.letters)
            else:
                self.visible.add(position)

    def store_letters(self, count: int) -> None:
        self.visible.update(self._read(topics.DEAD_LETTER, self.by_letter, count))

    def _read(self, topic: str, by: list[int | None], count: int) -> list[int]:
        """The next records, past which the sink commits."""
        first = self.done[topic]
        found = [(at, position) for at, position in enumerate(by[first:], first) if position is not None][:count]
        if found:
            self.done[topic] = found[-1][0] + 1
        return [position for _, position in found]

    def hidden(self, through: int) -> list[int]:
        """Arrivals before `through` that are not visible."""
        stored = [arrival for at, arrival in enumerate(self.raw) if arrival is not None and at not in self.visible]
        return [arrival for arrival in stored + self.arrived if arrival < through]


def one_round(world: World, books: Completeness, between: list[tuple[str, int]]) -> bool:
    """As `sinks.bookkeeping` does it, with the world going on between its reads."""
    finished = world.finished(books.awaited)
    happen(world, between[:1])
    now = world.now
    happen(world, between[1:])
    return books.advance(finished, now, world.ends())


def happen(world: World, actions: list[tuple[str, int]]) -> None:
    for name, count in actions:
        getattr(world, name)(count)


_NAMES = ("wait", "accept", "append", "stream", "abort", "store", "store_letters")
_OFTEN = (2, 2, 2, 3, 1, 4, 4)
_ACTIONS = st.tuples(st.sampled_from(_NAMES), st.integers(1, 4))


@given(st.integers(0, 2**32))
def test_what_is_proven_is_visible(seed: int) -> None:
    """Whatever happens in whatever order, and whoever takes the books over: nothing that arrived before is hidden."""
    rng, world, books, through = random.Random(seed), World(), Completeness(1, _DELAY, {}), 0
    pace = rng.randrange(1, 8)  # of the stages: some fall behind
    for _ in range(150):
        if rng.random() < 0.02:
            books = Completeness(1, _DELAY, {0: through})
        happen(world, [(name, rng.randrange(1, pace + 1)) for name in rng.choices(_NAMES, _OFTEN, k=8)])
        one_round(world, books, [(name, rng.randrange(1, 4)) for name in rng.choices(_NAMES, k=3)])
        through = max(through, books.through_us[0])
        assert world.hidden(through) == []
    event(f"proven {'again and again' if through > 300 else 'seldom'}")


@given(st.lists(_ACTIONS, max_size=30))
def test_an_idle_partition_advances(history: list[tuple[str, int]]) -> None:
    """Once everything is stored, a proof takes three rounds, though markers end the topics."""
    world, books = World(), Completeness(1, _DELAY, {})
    happen(world, history)
    happen(world, [("append", 1000), ("append", 999), ("stream", 1000), ("store", 1000), ("store_letters", 1000)])
    proven = [one_round(world, books, [("wait", 1)]) for _ in range(8)]
    assert proven == [False, False, False, True, False, False, True, False]
    assert world.now - 8 <= books.through_us[0] + _DELAY <= world.now


def test_partitions_do_not_wait_for_each_other() -> None:
    """One that stands still keeps its moment; the others advance."""
    books = Completeness(2, _DELAY, {})
    ends = {TopicPartition(topic, partition): 7 for topic in GATES for partition in range(2)}
    for now in range(100, 104):
        books.advance([tp for tp in books.awaited if tp.partition == 1], now, ends)
    assert books.through_us == {0: 0, 1: 100 - _DELAY}


def test_a_successor_begins_with_what_is_proven() -> None:
    """A partition that stands still keeps its moment when another sink takes the books over."""
    books = Completeness(2, _DELAY, {0: 90, 1: 95})
    ends = {TopicPartition(topic, partition): 7 for topic in GATES for partition in range(2)}
    for now in range(100, 104):
        books.advance([tp for tp in books.awaited if tp.partition == 1], now, ends)
    assert books.through_us == {0: 90, 1: 100 - _DELAY}


def test_an_append_may_come_after_body_and_two_timeouts() -> None:
    """The time that a body may take, the publish timeout twice, and the skew between two clocks."""
    delay_us = append_delay_us(settings.load({"EVENTPUSH_INGRESS_BODY_TIMEOUT_S": "3"}))
    assert delay_us == 3_000_000 + 2 * 1_500_000 + CLOCK_SKEW_US


def test_an_added_partition_holds_up_the_rows_until_its_first_proof() -> None:
    """While nothing is proven of one partition, what is proven of the others is not the whole."""
    completeness = Completeness(2, _DELAY, {})
    tps = [TopicPartition(topic, partition) for topic in GATES for partition in range(2)]
    ends = dict.fromkeys(tps, 0)
    completeness.advance(set(), 100, ends)
    first = {TopicPartition(topic, 0) for topic in GATES}
    while not completeness.through_us[0]:
        completeness.advance(first, 101, ends)
    assert not completeness.is_whole
    while not completeness.through_us[1]:
        completeness.advance(set(tps), 102, ends)
    assert completeness.is_whole
