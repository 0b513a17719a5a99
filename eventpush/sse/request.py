"""What a client of the event stream asks for: a topic, a filter, and where to go on. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eventpush.filters import Filter, filter_of
from eventpush.record_text import fields_of_value
from schemas import topics
from schemas.event import Event
from schemas.event_types import canonical
from schemas.fields import fields_of

_PARAMETERS = ("type", "where")
_OFFSETS = re.compile(r"\d{1,19}(-\d{1,19})*", re.ASCII)


@dataclass(frozen=True)
class Query:
    """Which events a client wants: those of a topic, or some of them."""

    topic: str
    chosen: Filter | None = None

    def wants(self, value: bytes) -> bool:
        """Return whether the record with this value is sent to the client."""
        return self.chosen is None or self.chosen(fields_of_value(value))


def query_of(parameters: Mapping[str, str]) -> Query:
    """Read `type` and `where`; raise ValueError, whose text says what is wrong, for anything else."""
    unknown = [name for name in parameters if name not in _PARAMETERS]
    if unknown:
        raise ValueError(f"no parameter {unknown[0][:100]!r}; parameters are {', '.join(_PARAMETERS)}")
    if len(parameters) > len(set(parameters)):
        raise ValueError("give each parameter once")
    event, where = canonical(parameters.get("type", "")), parameters.get("where")
    if "type" in parameters and not event:
        raise ValueError("type is empty; give one such as sos, or leave it out for all events")
    topic = topics.of_type(event) if event else topics.EVENTS
    return Query(topic, None if where is None else filter_of(where, list(fields_of(Event))))


@dataclass
class Position:
    """The offset that a client has to get next, by partition. Its text is the id of a server-sent event."""

    offsets: list[int]
    _texts: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._texts = [str(offset) for offset in self.offsets]

    def __str__(self) -> str:
        return "-".join(self._texts)

    def move(self, partition: int, next_offset: int) -> None:
        """Move to the offset after what the client has got, or does not want."""
        self.offsets[partition] = next_offset
        self._texts[partition] = str(next_offset)

    def lost_at(self, begins: Sequence[int], ends: Sequence[int]) -> int | None:
        """Return the first partition that no longer has, or never had, the next offset; None if all have it."""
        bounds = zip(begins, self.offsets, ends, strict=True)
        return next((at for at, (begin, offset, end) in enumerate(bounds) if not begin <= offset <= end), None)


def position_of(last_event_id: str, partitions: int) -> Position:
    """Read a `Last-Event-ID`; raise ValueError if it is not an id that this topic's events have.

    One from before partitions were added continues with the first events of these.
    """
    if not _OFFSETS.fullmatch(last_event_id) or last_event_id.count("-") >= partitions:
        raise ValueError(
            f"Last-Event-ID {last_event_id[:100]!r} is not an id of this stream; leave it out to begin now"
        )
    offsets = [int(offset) for offset in last_event_id.split("-")]
    return Position(offsets + [0] * (partitions - len(offsets)))
