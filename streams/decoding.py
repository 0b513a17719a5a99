"""Decode and check the raw records of a batch: valid events as columns, the others with every rule they break. Pure.

Rules cost 10 µs an event one by one, and 2 µs when a column is checked at once. So whatever a column's check finds
plainly valid (nearly everything) is decided here; the rest goes through `schemas.validation`, which decides. Both use
the rules that `schemas.event` declares, and a property test compares them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from types import NoneType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from runtime.consumer.batch import Record
from schemas.column_types import Bools, Float64s, Int64s
from schemas.dead_letter import Violation
from schemas.event import SENT_FIELDS, SentEvent, StrictSentEvent
from schemas.event_types import canonical
from schemas.json_text import members_of
from schemas.replay import Replay, replay_of
from schemas.rules import PAYLOAD_BYTES_MAX, TIME_RULES, EventTimes
from schemas.times import rfc3339
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID, HEADER_REPLAY, HEADER_SENDER, HEADER_TRACEPARENT
from schemas.validation import NO_EXTRA, ClockLimits, ValidEvent, blank_as_none, extra_of, validate

_decode_strictly = msgspec.json.Decoder(StrictSentEvent).decode
_decode = msgspec.json.Decoder(SentEvent).decode

_UNREADABLE = SentEvent("", 0, "", "", "", "")
_NO_EXTRA = msgspec.Raw(NO_EXTRA)
_CONTRACTS_ZONE = "+0000"
_ARRIVAL_MAX_US = 253_402_300_799_999_999  # the year 9999 ends
_ARRIVAL_DIGITS_MAX = 18  # of an integer that fits into 64 bits

_POWERS = 10 ** np.arange(15, -1, -1, dtype=np.int64)  # of ten, for 16 digits

_OPTIONAL = [field.attribute for field in SENT_FIELDS.values() if field.nullable]

#: Quotes of a member whose name may be missing, by the type of its value; 22 are those of the other names and strings.
_OPTIONAL_QUOTES = {str: 4, NoneType: 2, msgspec.UnsetType: 0}
_REQUIRED_QUOTES = 22


class ValidEvents(NamedTuple):
    """Valid events in order of arrival: one column a field, all of the same length; times in µs since the epoch."""

    records: list[Record]
    partitions: Int64s  # of the raw topic
    received_us: Int64s
    receipt_ids: list[str | None]
    senders: list[str | None]
    traceparents: list[bytes | None]
    event: list[str]
    event_as_sent: list[str | None]
    changes: list[int]
    imei: list[str]
    device_time: list[str]  # to the microsecond, in the contract's format or in RFC 3339 with Z
    server_time: list[str]
    device_us: Int64s
    server_us: Int64s
    latitude: Float64s  # degrees
    longitude: Float64s
    location: list[str | None]
    geofence_name: list[str | None]
    extra: list[msgspec.Raw]
    time_cut: Bools
    duplicate_keys: Bools
    replayed: Bools  # sent by a replay

    def invalid(self, at: int, violations: list[Violation], conflict: str | None = None) -> "InvalidRecord":
        """Return one of the events as an invalid record."""
        received_us, receipt_id = int(self.received_us[at]), self.receipt_ids[at]
        return InvalidRecord(
            self.records[at], int(self.partitions[at]), received_us, receipt_id, self.senders[at], violations, conflict
        )

    @property
    def written_ms(self) -> Int64s:
        """The times of what is published of the events, in ms since the epoch.

        They are those of the arrivals, but for a replay: its arrival may be older than Kafka keeps records.
        """
        arrived_ms = self.received_us // 1000
        if not self.replayed.any():
            return arrived_ms
        return np.where(self.replayed, [record.timestamp for record in self.records], arrived_ms)

    def only(self, chosen: Bools) -> "ValidEvents":
        """Return the events for which `chosen` is true."""
        if chosen.all():
            return self
        dropped = np.flatnonzero(~chosen)[::-1].tolist()
        return ValidEvents(*(_only(column, chosen, dropped) for column in self))


class InvalidRecord(NamedTuple):
    """A record that cannot be an event, with all the reasons; `conflict` is the event_id that a conflict is with."""

    record: Record
    partition: int
    received_us: int
    receipt_id: str | None
    sender: str | None
    violations: list[Violation]
    conflict: str | None = None

    @property
    def replay(self) -> Replay | None:
        """The replay that sent the record."""
        return replay_of(self.record.headers)

    @property
    def written_ms(self) -> int:
        """The time of what is published of the record, in ms since the epoch."""
        return self.record.timestamp if self.replay else self.received_us // 1000


class _Payloads(NamedTuple):
    """Payloads as far as their JSON goes; `unread` could not be decoded into the known fields."""

    sent: dict[str, list[Any]]  # known fields by attribute
    extra: list[msgspec.Raw]
    unread: list[int]
    duplicate_keys: Bools


def decode(
    records: Sequence[Record], partitions: Int64s, clock: ClockLimits
) -> tuple[ValidEvents, list[InvalidRecord]]:
    """Split records into valid events and the others, both in order; any bytes are one or the other.

    `partitions` are those of the raw topic, one a record.
    """
    values = [record.value or b"" for record in records]
    arrived = arrivals(records)
    payloads = _decoded(values)
    sent = payloads.sent
    suspects = set(payloads.unread)
    for field in SENT_FIELDS.values():
        column = sent[field.attribute]
        if field.nullable:
            column = ["" if text is None else text for text in column]  # None breaks no rule
        for rule in field.rules:
            suspects.update(rule.suspects(column))
    parsed = {field.name: field.format.parse_column(sent[field.attribute]) for field in _FORMATTED}
    for field in _FORMATTED:
        column, unread = parsed[field.name]
        suspects.update(unread)
        for rule in field.format.value_rules:
            suspects.update(rule.suspects(column))
    device_us, server_us = parsed["Device_Time"][0], parsed["Server_Time"][0]
    moments = EventTimes(device_us, server_us, arrived.received_us + clock.lead_us)
    for time_rule in TIME_RULES:
        suspects.update(np.flatnonzero(~time_rule.holds(moments)).tolist())
    latitude, longitude = parsed["Coordinates"][0]
    event, event_as_sent = _canonical(sent["event"])
    events = ValidEvents(
        records=list(records),
        partitions=partitions,
        received_us=arrived.received_us,
        receipt_ids=arrived.receipt_ids,
        senders=arrived.senders,
        traceparents=arrived.traceparents,
        event=event,
        event_as_sent=event_as_sent,
        changes=sent["changes"],
        imei=sent["imei"],
        device_time=sent["device_time"],
        server_time=sent["server_time"],
        device_us=device_us,
        server_us=server_us,
        latitude=latitude,
        longitude=longitude,
        location=sent["location"],
        geofence_name=_names(sent["geofence_name"]),
        extra=payloads.extra,
        time_cut=np.zeros(len(records), np.bool_),
        duplicate_keys=payloads.duplicate_keys,
        replayed=arrived.replayed,
    )
    return _decide(events, values, sorted(suspects), clock)


def _decide(
    events: ValidEvents, values: Sequence[bytes], suspects: Iterable[int], clock: ClockLimits
) -> tuple[ValidEvents, list[InvalidRecord]]:
    """Let the rules decide on the suspects, one by one."""
    valid = np.ones(len(values), np.bool_)
    invalid: list[InvalidRecord] = []
    for at in suspects:
        found = validate(values[at], int(events.received_us[at]), clock)
        if isinstance(found, ValidEvent):
            _put(events, at, found)
        else:
            valid[at] = False
            invalid.append(events.invalid(at, found))
    return events.only(valid), invalid


class Arrivals(NamedTuple):
    """What the ingress wrote into the records' headers, as columns."""

    received_us: Int64s  # when it accepted each, µs since the epoch
    receipt_ids: list[str | None]
    senders: list[str | None]
    traceparents: list[bytes | None]
    replayed: Bools  # sent by a replay


def arrivals(records: Sequence[Record]) -> Arrivals:
    """Read the headers of raw records.

    A record that did not come through the ingress has none, and its timestamp counts as its arrival.
    """
    named = _headers_by_name(records)
    return Arrivals(
        _arrival_times(records, named(HEADER_ARRIVAL_US)),
        _texts(named(HEADER_RECEIPT_ID)),
        _texts(named(HEADER_SENDER)),
        named(HEADER_TRACEPARENT),
        _replayed(records, named(HEADER_REPLAY)),
    )


def _headers_by_name(records: Sequence[Record]) -> Callable[[str], list[bytes | None]]:
    """Return what returns the column of a header by its name; None where a record does not have it.

    The ingress writes the same headers in the same order: then the records' headers are a table, and read as one.
    """
    headers = [record.headers for record in records]
    width = len(headers[0]) if headers else 0
    if width and set(map(len, headers)) == {width}:
        names, texts = zip(*chain.from_iterable(headers), strict=True)
        if names == names[:width] * len(headers):
            columns = {name: list(texts[at::width]) for at, name in enumerate(names[:width])}
            return lambda name: columns.get(name) or [None] * len(headers)
    by_record = list(map(dict, headers))
    return lambda name: [named.get(name) for named in by_record]


def _arrival_times(records: Sequence[Record], column: Sequence[bytes | None]) -> Int64s:
    times_us = _plain_times(column)
    if times_us is None:
        times_us = np.array(
            [
                int(arrival)
                if arrival and len(arrival) <= _ARRIVAL_DIGITS_MAX and arrival.isdigit()
                else min(max(record.timestamp, 0) * 1000, _ARRIVAL_MAX_US)
                for record, arrival in zip(records, column, strict=True)
            ],
            np.int64,
        )
    return np.minimum(times_us, _ARRIVAL_MAX_US)


def _plain_times(column: Sequence[bytes | None]) -> Int64s | None:
    """Read times of 16 digits each, as those from 2001 to 2286 have; None if there is another one."""
    texts = [text for text in column if text is not None]
    if len(texts) < len(column) or set(map(len, texts)) != {len(_POWERS)}:
        return None
    digits = np.frombuffer(b"".join(texts), np.uint8).reshape(-1, len(_POWERS)) - ord("0")  # wraps below "0"
    times_us: Int64s = digits @ _POWERS
    return times_us if digits.max() <= 9 else None


def _replayed(records: Sequence[Record], column: Sequence[bytes | None]) -> Bools:
    if column.count(None) == len(column):
        return np.zeros(len(column), np.bool_)
    return np.array([replay_of(record.headers) is not None for record in records], np.bool_)


def _texts(column: list[bytes | None]) -> list[str | None]:
    known = [text for text in column if text is not None]
    if not known:
        return [None] * len(column)
    texts: list[str | None] = list(b"\n".join(known).decode("utf-8", "replace").split("\n"))
    if len(texts) == len(column):  # as nearly always: every record has one, of a single line
        return texts
    return [None if text is None else text.decode("utf-8", "replace") for text in column]


_FORMATTED: list[Any] = [field for field in SENT_FIELDS.values() if field.format is not None]


def _decoded(values: Sequence[bytes]) -> _Payloads:
    """Decode each payload into its known fields; unknown fields are kept as they were sent."""
    events: list[Any] = []
    unread: list[int] = []
    with_more: list[int] = []
    extra = [_NO_EXTRA] * len(values)
    for at, value in enumerate(values):
        try:
            events.append(_decode_strictly(value) if len(value) <= PAYLOAD_BYTES_MAX else _unread(at, unread))
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            try:
                event, extra[at] = _decode_with_more(value)
                events.append(event)
                with_more.append(at)
            except (ValueError, RecursionError):
                events.append(_unread(at, unread))
    columns = map(list, zip(*map(msgspec.structs.astuple, events), strict=True)) if events else repeat([])
    sent: dict[str, list[Any]] = dict(zip(SentEvent.__struct_fields__, columns, strict=False))
    duplicate_keys = _duplicate_keys(values, sent, {*unread, *with_more})
    for name in _OPTIONAL:
        sent[name] = [None if text is msgspec.UNSET else text for text in sent[name]]
    return _Payloads(sent, extra, unread, duplicate_keys)


def _unread(at: int, unread: list[int]) -> Any:
    unread.append(at)
    return _UNREADABLE


def _decode_with_more(value: bytes) -> tuple[Any, msgspec.Raw]:
    """Decode the known fields, and the others as one object; raise ValueError for what only the rules can decide."""
    event, members = _decode(value), members_of(value) or ()
    if len({member.name for member in members}) < len(members):
        raise ValueError("a name is there twice")
    return event, msgspec.Raw(extra_of(members))


def _duplicate_keys(values: Sequence[bytes], sent: dict[str, list[Any]], other: set[int]) -> Bools:
    """Find the payloads that have a name twice, by their number of quotes; leave out `other`.

    No payload has fewer quotes than its fields need: a batch with no more than all of them need has no such name.
    """
    duplicate = np.zeros(len(values), np.bool_)
    needed = _REQUIRED_QUOTES * len(values) + sum(
        _OPTIONAL_QUOTES[kind] * count for name in _OPTIONAL for kind, count in Counter(map(type, sent[name])).items()
    )
    plain = list(values)
    for at in other:
        plain[at] = b""
        needed -= _needed_quotes(sent, at)
    if _unescaped_quotes(b"".join(plain)) != needed:
        for at, value in enumerate(plain):
            if value and value.count(b'"') != _needed_quotes(sent, at):
                names = json.loads(value, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
                duplicate[at] = len(set(names)) < len(names)
    return duplicate


def _needed_quotes(sent: dict[str, list[Any]], at: int) -> int:
    return _REQUIRED_QUOTES + sum(_OPTIONAL_QUOTES[type(sent[name][at])] for name in _OPTIONAL)


def _unescaped_quotes(text: bytes) -> int | None:
    """Count the quotes that are not escaped; return None if a backslash is escaped, which makes that unclear."""
    letters = np.frombuffer(text, np.uint8)
    escaped = letters[np.flatnonzero(letters == ord("\\")) + 1]
    if (escaped == ord("\\")).any():
        return None
    return int(np.count_nonzero(letters == ord('"')) - np.count_nonzero(escaped == ord('"')))


def _names(column: list[str | None]) -> list[str | None]:
    return [None if name is None else blank_as_none(name) for name in column]


def _canonical(sent: list[str]) -> tuple[list[str], list[str | None]]:
    """Return the canonical types, and what was sent where that differs."""
    different = {text: name for text in set(sent) if (name := canonical(text)) != text}
    event, as_sent = sent.copy(), list[str | None]([None] * len(sent))
    if different:
        for at, text in enumerate(sent):
            if text in different:
                event[at], as_sent[at] = different[text], text
    return event, as_sent


def _put(events: ValidEvents, at: int, found: ValidEvent) -> None:
    """Write an event that the rules accepted into the columns, by name."""
    for name in _SAME_NAMES:
        getattr(events, name)[at] = getattr(found, name)
    events.device_time[at], events.server_time[at] = rfc3339(found.device_us), rfc3339(found.server_us)
    events.extra[at] = msgspec.Raw(found.extra)


_SAME_NAMES = [name for name in ValidEvent.__struct_fields__ if name != "extra"]


def to_microseconds(texts: Sequence[str]) -> list[str]:
    """Convert a column of times (`device_time`, `server_time`) to RFC 3339 in UTC."""
    return "\n".join(texts).replace(_CONTRACTS_ZONE, "Z").split("\n") if texts else []


def _only(column: Any, chosen: Bools, dropped: Sequence[int]) -> Any:
    """Return the chosen values; of a list, delete the others, last first: they are few, so that is half the work."""
    if isinstance(column, np.ndarray):
        return column[chosen]
    kept = column.copy()
    for at in dropped:
        del kept[at]
    return kept
