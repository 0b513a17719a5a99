"""The intent of an insert: which offsets of which partition, made durable before the first byte goes to ClickHouse.

It stands in the metadata of the consumer group's commit. Whoever takes the partition over finds it there, reads exactly
these offsets again and inserts them with the same token, so ClickHouse drops what it has already.
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
        """What is committed with the offset `first`."""
        return f"{_PREFIX}{self.end}"

    @property
    def token(self) -> str:
        """The deduplication token of the whole insert."""
        return f"{self.tp.topic}:{self.tp.partition}:{self.first}-{self.end}"

    def token_of(self, records: Sequence[Record]) -> str:
        """The token of a part of the insert; halving is deterministic, so a part is the same part after a crash."""
        return f"{self.token}/{records[0].offset}-{records[-1].offset}"


def found(tp: TP, offset: int, metadata: str) -> WriteIntent | None:
    """The intent that was committed and not finished, if there is one; ValueError if the metadata is not ours."""
    if not metadata:
        return None
    if not metadata.startswith(_PREFIX):
        raise ValueError(f"the offset of {tp.topic}[{tp.partition}] carries metadata that is no intent: {metadata!r}")
    return WriteIntent(tp, offset, int(metadata.removeprefix(_PREFIX)))
