"""What waits for each stage, and since when, from the offsets in Kafka. Pure.

Up to when everything is stored does not follow from that: `sinks.completeness` proves it.
"""

import msgspec


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition that a stage has not committed yet."""

    stage: str  # streams or sink
    topic: str
    partition: int
    records: int
    oldest_us: int | None  # arrival of the first of them; None if it could not be read in time


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The backlogs of all partitions, those only in which records wait."""

    backlogs: list[Backlog]

    def waiting(self, stage: str) -> int:
        """Return how many records wait for a stage."""
        return sum(backlog.records for backlog in self.backlogs if backlog.stage == stage)

    def oldest_us(self, stage: str | None = None) -> int | None:
        """Return the arrival of the oldest event that waits for this stage, or for any."""
        return min(
            (b.oldest_us for b in self.backlogs if stage in {None, b.stage} and b.oldest_us is not None), default=None
        )
