"""A batch: the records that one fetch returned for one partition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from faust.types import TP


class Record(Protocol):
    """One record, as aiokafka's parser makes it (`aiokafka/record/_crecords/default_records.pyx`)."""

    offset: int
    timestamp: int  # milliseconds since the epoch
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one fetch returned for one partition: at least one record, offsets ascending.

    These are all the records at or after `from_offset` up to the last one; offsets in between that no record has belong
    to markers of transactions or to what was aborted.
    """

    tp: TP
    records: Sequence[Record]
    generation_id: int
    from_offset: int

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return self.records[0].offset

    @property
    def next_offset(self) -> int:
        """The offset to commit when the whole batch has been processed."""
        return self.records[-1].offset + 1

    def beginning_at(self, offset: int) -> "Batch | None":
        """Return the part of the batch at or after `offset`, or None when there is none."""
        if offset <= self.from_offset:
            return self
        rest = [record for record in self.records if record.offset >= offset]
        return Batch(self.tp, rest, self.generation_id, offset) if rest else None
