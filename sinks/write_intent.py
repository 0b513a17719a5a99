"""The intent of an insert: a partition and its offsets, made durable before the first byte goes to ClickHouse.

It is the metadata of the consumer group's commit. A new owner of the partition finds it there, reads exactly these
offsets again and inserts them with the same token, so that ClickHouse drops the rows it already has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from faust.types import TP

from runtime.consumer.batch import Record

_PREFIX = "insert-to:"


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """The records of `tp` with `first` ≤ offset < `end` are one insert."""

    tp: TP
    first: int
    end: int

    @property
    def metadata(self) -> str:
        """The metadata to commit with the offset `first`."""
        return f"{_PREFIX}{self.end}"

    @property
    def token(self) -> str:
        """The deduplication token of the whole insert."""
        return f"{self.tp.topic}:{self.tp.partition}:{self.first}-{self.end}"

    def token_of(self, records: Sequence[Record]) -> str:
        """Return the token of a part of the insert; bisection is deterministic, so parts recur after a crash."""
        return f"{self.token}/{records[0].offset}-{records[-1].offset}"


def found(tp: TP, offset: int, metadata: str) -> WriteIntent | None:
    """Return the committed, unfinished intent or None; raise ValueError for metadata of another origin."""
    if not metadata:
        return None
    if not metadata.startswith(_PREFIX):
        raise ValueError(
            f"the offset of {tp.topic}[{tp.partition}] has metadata that is not a write intent: {metadata!r}"
        )
    return WriteIntent(tp, offset, int(metadata.removeprefix(_PREFIX)))
