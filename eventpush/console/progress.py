"""How far the stages are, from the offsets in Kafka: what waits, since when, and up to when all is stored. Pure."""

from collections.abc import Iterable

import msgspec


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition that a stage has not committed yet."""

    stage: str  # streams or sink
    topic: str
    partition: int
    records: int
    oldest_us: int | None  # arrival of the first of them; None if only transaction markers wait


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The backlogs of all partitions, as read at `at_us`."""

    at_us: int
    backlogs: list[Backlog]

    def waiting(self, stage: str) -> int:
        """Return how many records wait for a stage."""
        return sum(backlog.records for backlog in self.backlogs if backlog.stage == stage and backlog.oldest_us)

    def oldest_us(self, stage: str | None = None) -> int | None:
        """Return the arrival of the oldest event that waits for this stage, or for any."""
        return _oldest(b for b in self.backlogs if stage in {None, b.stage})

    @property
    def complete_through_us(self) -> int:
        """Every event that was answered with 200 before this moment is in ClickHouse.

        Holds because the ends of the raw topic were read first, then what the streams committed, then the ends of
        their topics, then what the sink committed: whatever waited at `at_us` is in one of the backlogs.
        """
        oldest_us = self.oldest_us()
        return self.at_us if oldest_us is None else min(oldest_us, self.at_us)


def _oldest(backlogs: Iterable[Backlog]) -> int | None:
    return min((b.oldest_us for b in backlogs if b.oldest_us is not None), default=None)
