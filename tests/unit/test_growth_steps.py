"""What a growth has to do next, by what Kafka has."""

import pytest
from aiokafka.structs import TopicPartition

from eventpush.growth.routing import Growth
from eventpush.growth.steps import Journal, Step, decide, entry, finished_entry, journal_of
from runtime.kafka.raw_gate import Gate
from runtime.platform.errors import OperatorError
from schemas.topics import LATEST, RAW, WINDOW

FOUR, TWELVE = {RAW: 4, WINDOW: 4}, {RAW: 12, WINDOW: 12}
MIXED = {RAW: 12, WINDOW: 4}
JOURNAL = Journal(Growth(4, 12), {TopicPartition(WINDOW, 0): (3, 9)})


@pytest.mark.parametrize("gate", [None, *Gate])
@pytest.mark.parametrize(
    ("counts", "journal", "step"),
    [(FOUR, None, Step.PREPARE), (FOUR, JOURNAL, Step.MOVE), (MIXED, JOURNAL, Step.MOVE), (TWELVE, JOURNAL, Step.MOVE)],
)
def test_a_growth_goes_on_where_it_was_ended(
    counts: dict[str, int], journal: Journal | None, step: Step, gate: Gate | None
) -> None:
    """Before the journal it is prepared again, with one it moves what is left, however many partitions there are."""
    assert decide(12, counts, gate, journal) == (step, Growth(4, 12))


def test_a_closed_gate_without_a_journal_is_opened() -> None:
    """All is moved, or nothing has begun: with the number that the topics have, there is only the gate to open."""
    for gate in Gate:
        assert decide(12, TWELVE, gate, None)[0] is Step.OPEN
        assert decide(4, FOUR, gate, None)[0] is Step.OPEN
    assert decide(12, TWELVE, None, None)[0] is Step.NOTHING


@pytest.mark.parametrize(
    ("wanted", "counts", "journal", "said"),
    [
        (8, TWELVE, None, "have 12 partitions, so --partitions 8 would take some away"),
        (24, TWELVE, JOURNAL, "finish that first: `eventpush topics grow --partitions 12`"),
        (4, FOUR, JOURNAL, "on their way from 4 to 12 partitions"),
        (24, MIXED, None, f"the topics have 12 partitions, but {WINDOW} has 4: something else"),
    ],
)
def test_what_cannot_be_is_said(wanted: int, counts: dict[str, int], journal: Journal | None, said: str) -> None:
    """Fewer partitions, another growth than the one begun, and counts that this command did not make."""
    with pytest.raises(OperatorError, match=said):
        decide(wanted, counts, None, journal)


def test_the_journal_is_in_the_offsets() -> None:
    """It is read as it was written; finished entries and those of others are none."""
    window, latest = TopicPartition(WINDOW, 3), TopicPartition(LATEST, 0)
    journal = journal_of({window: entry(Growth(4, 12), 17, 400), latest: entry(Growth(4, 12), 5, 5)})
    assert journal == Journal(Growth(4, 12), {window: (17, 400), latest: (5, 5)})
    assert journal.of_topic(WINDOW) == {3: (17, 400)}
    assert journal_of({window: finished_entry(400), latest: finished_entry(5)}) is None
    assert journal_of({}) is None
