"""The intent of an insert: partitions and their offsets, made durable before the first byte goes to ClickHouse.

It is the metadata of the consumer group's commit, the same for each of its partitions, which are committed in one
request. A new owner of any of them finds it there, reads exactly these offsets again, also those of partitions that it
does not own, and makes the same insert with the same token, so that ClickHouse drops the rows it already has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from faust.types import TP

from runtime.consumer.batch import Record

_PREFIX_ONE = "insert-to:"  # the end of an insert of one partition
_PREFIX = "insert:"  # all parts
_DIGEST_BYTES = 16

#: Longest metadata of an intent: brokers accept 4,096 bytes (`offset.metadata.max.bytes`).
METADATA_MAX_BYTES = 4_000


class Part(NamedTuple):
    """The records of `partition` with `first` ≤ offset < `end`."""

    partition: int
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.partition}={self.first}-{self.end}"


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """The records of these parts of a topic, ascending by partition, are one insert."""

    topic: str
    parts: tuple[Part, ...]

    @property
    def metadata(self) -> str:
        """The metadata to commit with the first offset of each part."""
        if len(self.parts) == 1:
            return f"{_PREFIX_ONE}{self.parts[0].end}"
        return _PREFIX + ",".join(map(str, self.parts))

    @property
    def token(self) -> str:
        """The deduplication token of the whole insert."""
        if len(self.parts) == 1:
            partition, first, end = self.parts[0]
            return f"{self.topic}:{partition}:{first}-{end}"
        return f"{self.topic}:{blake2b(self.metadata.encode(), digest_size=_DIGEST_BYTES).hexdigest()}"

    def token_of(self, rows: "Sequence[Row]") -> str:
        """Return the token of a piece of the insert; bisection is deterministic, so pieces recur after a crash."""
        if len(self.parts) == 1:
            return f"{self.token}/{rows[0].record.offset}-{rows[-1].record.offset}"
        first, last = rows[0], rows[-1]
        return f"{self.token}/{first.partition}.{first.record.offset}-{last.partition}.{last.record.offset}"

    def part_of(self, partition: int) -> Part:
        """Return a partition's part; raises StopIteration if it has none."""
        return next(part for part in self.parts if part.partition == partition)

    def rows(self, records: Mapping[int, Sequence[Record]]) -> "list[Row]":
        """Return the insert's rows in order, given the records by partition."""
        return [Row(part.partition, record) for part in self.parts for record in records.get(part.partition, ())]


class Row(NamedTuple):
    """A record that becomes a row, with its partition."""

    partition: int
    record: Record


def found(tp: TP, offset: int, metadata: str) -> WriteIntent | None:
    """Return the committed, unfinished intent or None; raise ValueError for metadata of another origin."""
    if not metadata:
        return None
    try:
        if metadata.startswith(_PREFIX_ONE):
            return WriteIntent(tp.topic, (Part(tp.partition, offset, int(metadata.removeprefix(_PREFIX_ONE))),))
        if metadata.startswith(_PREFIX):
            intent = WriteIntent(tp.topic, tuple(map(_part, metadata.removeprefix(_PREFIX).split(","))))
            if intent.part_of(tp.partition).first == offset:
                return intent
    except (ValueError, StopIteration):
        pass
    raise ValueError(f"the offset of {tp.topic}[{tp.partition}] has metadata that is not a write intent: {metadata!r}")


def _part(text: str) -> Part:
    partition, _, offsets = text.partition("=")
    first, _, end = offsets.partition("-")
    return Part(int(partition), int(first), int(end))
