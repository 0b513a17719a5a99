"""What a growth has to do next, decided from what Kafka has. Pure.

    counts, gate, journal ──> nothing | prepare (close the gate, let the stages finish) | move | open the gate

The journal is the committed offsets of a consumer group of the growth's own. There is one as soon as the stages have
finished and left, and until all is moved: for each partition that is moved, the next offset to move and, as metadata,
its end and the numbers of partitions. Its offsets are committed in the transactions that move.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiokafka.structs import OffsetAndMetadata, TopicPartition

from eventpush.growth.routing import Growth
from runtime.kafka.raw_gate import Gate
from runtime.platform.errors import OperatorError

_WORD = "grow"


class Step(StrEnum):
    """What is to be done first; what follows it is to be done too."""

    PREPARE = "prepare"
    MOVE = "move"
    OPEN = "open"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Journal:
    """How far a growth has come: by partition the next offset to move, and its end."""

    growth: Growth
    moves: Mapping[TopicPartition, tuple[int, int]]

    def of_topic(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the moves of a topic by partition."""
        return {tp.partition: move for tp, move in self.moves.items() if tp.topic == topic}


def entry(growth: Growth, position: int, end: int) -> OffsetAndMetadata:
    """Return what the journal has for a partition."""
    return OffsetAndMetadata(position, f"{_WORD} {growth.before} {growth.after} {end}")


def finished_entry(position: int) -> OffsetAndMetadata:
    """Return what takes the place of an entry when all is moved."""
    return OffsetAndMetadata(position, "")


def journal_of(committed: Mapping[TopicPartition, OffsetAndMetadata]) -> Journal | None:
    """Read the journal from the group's offsets; None if no growth is under way."""
    growth, moves = None, {}
    for tp, found in committed.items():
        word, _, numbers = (found.metadata or "").partition(" ")
        if word == _WORD:
            before, after, end = map(int, numbers.split())
            growth = Growth(before, after)
            moves[tp] = found.offset, end
    return None if growth is None else Journal(growth, moves)


def decide(wanted: int, counts: Mapping[str, int], gate: Gate | None, journal: Journal | None) -> tuple[Step, Growth]:
    """Return the next step and the growth that it belongs to; raise `OperatorError` for what cannot be.

    `counts` are the partitions by topic, of those that grow.
    """
    if journal is not None:
        if wanted != journal.growth.after:
            raise OperatorError(
                f"the topics are on their way from {journal.growth.before} to {journal.growth.after} partitions",
                f"finish that first: `eventpush topics grow --partitions {journal.growth.after}`",
            )
        return Step.MOVE, journal.growth
    fewest, most = min(counts.values()), max(counts.values())
    if fewest != most:
        others = ", ".join(f"{name} has {count}" for name, count in sorted(counts.items()) if count != most)
        raise OperatorError(
            f"the topics have {most} partitions, but {others}: something else than this command has added them",
            "drain the pipeline and begin with new topics",
        )
    if wanted < most:
        raise OperatorError(
            f"the topics have {most} partitions, so --partitions {wanted} would take some away, which Kafka cannot",
            f"name a number above {most}",
        )
    if wanted == most:
        return (Step.NOTHING if gate is None else Step.OPEN), Growth(most, most)
    return Step.PREPARE, Growth(most, wanted)
