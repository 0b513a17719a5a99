"""Reads the raw records of a batch: valid events as columns, the rest with every rule that they break. Pure.

This module is clever, and this is why: the rules cost 10 µs an event when they are gone through one by one, and 2 µs
when a column is checked at once. So what is plainly right (nearly everything) is seen to be so by the column; whatever
is not goes through `schemas.validation`, which knows every rule and decides. Both agree: a test says so.
"""

import re
from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import msgspec
import numpy as np

from runtime.consumer.batch import Record
from schemas.events import (
    COORDINATES_MAX,
    EVENT_MAX,
    GEOFENCE_MAX,
    LOCATION_MAX,
    PAYLOAD_BYTES_MAX,
    SentEvent,
    StrictlySentEvent,
    ValidEvent,
    Violation,
)
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID
from schemas.validation import WELL_WRITTEN, unknown_fields, validate
from streams import timestamp_columns
from streams.column_types import Bools, Float64s, Int64s

_decode_strictly = msgspec.json.Decoder(StrictlySentEvent).decode
_decode = msgspec.json.Decoder(SentEvent).decode
_decode_anything = msgspec.json.Decoder().decode

_NO_EXTRA: dict[str, msgspec.Raw] = {}
_UNREADABLE = SentEvent("", 0, "", "", "", "", "")
_NOWHERE = float("nan")
_PLAIN_CHARACTERS = re.compile("[0-9., -]*")  # those of WELL_WRITTEN
_ARRIVAL_MAX_US = 253_402_300_799_999_999  # the year 9999 ends
_ARRIVAL_DIGITS_MAX = 18  # of an integer that fits into 64 bits


class ValidEvents(NamedTuple):
    """Valid events in order of arrival: one column a field, all of the same length."""

    records: list[Record]
    received_us: Int64s  # arrival, µs since the epoch
    receipt_ids: list[str | None]
    sent: list[SentEvent]  # times in a spelling whose first 26 characters are the contract's; coordinates to be ignored
    extras: list[dict[str, msgspec.Raw]]
    device_us: Int64s
    server_us: Int64s
    latitudes: Float64s  # degrees
    longitudes: Float64s

    def only(self, chosen: Bools) -> "ValidEvents":
        """Those of the events for which `chosen` is true."""
        if chosen.all():
            return self
        listed = chosen.tolist()
        return ValidEvents(*(_only(column, chosen, listed) for column in self))


class InvalidRecord(NamedTuple):
    """A record that cannot be an event, and all the reasons."""

    record: Record
    received_us: int
    receipt_id: str | None
    violations: list[Violation]


def read(records: Sequence[Record], future_skew_us: int) -> tuple[ValidEvents, list[InvalidRecord]]:
    """The valid events among the records, and the others, both in order; any bytes are one or the other.

    An event's times may lie at most `future_skew_us` after its arrival.
    """
    values = [record.value or b"" for record in records]
    received_us, receipt_ids = arrivals(records)
    sent, extras = _decoded(values)
    device_us, device_ok = timestamp_columns.parse([event.device_time for event in sent])
    server_us, server_ok = timestamp_columns.parse([event.server_time for event in sent])
    latitudes, longitudes, somewhere = _positions([event.coordinates for event in sent])
    plain = device_ok & server_ok & somewhere & np.array(_plain_texts(sent), np.bool_)
    plain &= (device_us >= 0) & (device_us <= server_us) & (server_us <= received_us + future_skew_us)

    events = ValidEvents(
        list(records), received_us, receipt_ids, sent, extras, device_us, server_us, latitudes, longitudes
    )
    invalid: list[InvalidRecord] = []
    for at in np.flatnonzero(~plain).tolist():
        found = validate(values[at], int(received_us[at]), future_skew_us)
        if isinstance(found, ValidEvent):
            _put(events, at, found)
            plain[at] = True
        else:
            invalid.append(InvalidRecord(records[at], int(received_us[at]), receipt_ids[at], found))
    return events.only(plain), invalid


def arrivals(records: Sequence[Record]) -> tuple[Int64s, list[str | None]]:
    """When the ingress accepted each record (µs since the epoch), and its receipt.

    A record that came past the ingress has no such headers, and its timestamp counts.
    """
    received_us, receipt_ids = list[int](), list[str | None]()
    receipt: bytes | None
    for record in records:
        headers = record.headers
        if len(headers) == 2 and headers[0][0] == HEADER_ARRIVAL_US and headers[1][0] == HEADER_RECEIPT_ID:
            arrival, receipt = headers[0][1], headers[1][1]
        else:
            named = dict(headers)
            arrival, receipt = named.get(HEADER_ARRIVAL_US, b""), named.get(HEADER_RECEIPT_ID)
        if arrival.isdigit() and len(arrival) <= _ARRIVAL_DIGITS_MAX:
            received_us.append(int(arrival))
        else:
            received_us.append(min(max(record.timestamp, 0) * 1000, _ARRIVAL_MAX_US))
        receipt_ids.append(None if receipt is None else receipt.decode("ascii", "replace"))
    return np.minimum(np.array(received_us, np.int64), _ARRIVAL_MAX_US), receipt_ids


def _decoded(values: Sequence[bytes]) -> tuple[list[SentEvent], list[dict[str, msgspec.Raw]]]:
    """Each payload as an event's fields, `_UNREADABLE` where it has not their types; and its unknown fields."""
    sent: list[SentEvent] = []
    extras = [_NO_EXTRA] * len(values)
    for at, value in enumerate(values):
        try:
            sent.append(_decode_strictly(value) if len(value) <= PAYLOAD_BYTES_MAX else _UNREADABLE)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            event, extras[at] = _decoded_with_more(value)
            sent.append(event)
    return sent, extras


def _decoded_with_more(value: bytes) -> tuple[SentEvent, dict[str, msgspec.Raw]]:
    try:
        _decode_anything(value)  # the typed decoder passes over unknown fields without a look at what is in them
        return _decode(value), unknown_fields(value)
    except (ValueError, RecursionError):
        return _UNREADABLE, _NO_EXTRA


def _positions(coordinates: Sequence[str]) -> tuple[Float64s, Float64s, Bools]:
    """Latitudes and longitudes in degrees, and whether there is such a place (else they say nothing)."""
    latitudes, longitudes = [], []
    for text in coordinates:
        latitude, _, longitude = text.partition(",")
        try:
            north, east = float(latitude), float(longitude)
        except ValueError:
            north = east = _NOWHERE
        latitudes.append(north)
        longitudes.append(east)
    for at in _strange(coordinates):  # to `float`, these may be numbers
        latitudes[at] = _NOWHERE
    norths, easts = np.array(latitudes, np.float64), np.array(longitudes, np.float64)
    return norths, easts, (abs(norths) <= 90) & (abs(easts) <= 180)


def _strange(coordinates: Sequence[str]) -> list[int]:
    """Which of the texts are not well written; all are looked at together, as nearly always none is."""
    if _PLAIN_CHARACTERS.fullmatch("".join(coordinates)) and max(map(len, coordinates)) <= COORDINATES_MAX:
        return []
    return [at for at, text in enumerate(coordinates) if not WELL_WRITTEN.fullmatch(text)]


def _plain_texts(sent: Sequence[SentEvent]) -> list[bool]:
    """Whether IMEI and names are plainly what the rules ask."""
    return [
        len(e.imei) == 15
        and e.imei.isascii()
        and e.imei.isdigit()
        and 0 < len(e.event) <= EVENT_MAX
        and not e.event.isspace()
        and "\0" not in e.event
        and len(e.location) <= LOCATION_MAX
        and "\0" not in e.location
        and (e.geofence_name is None or (len(e.geofence_name) <= GEOFENCE_MAX and "\0" not in e.geofence_name))
        for e in sent
    ]


def _put(events: ValidEvents, at: int, found: ValidEvent) -> None:
    events.sent[at] = SentEvent(
        found.event, found.changes, found.device_time, found.imei, found.server_time, "", found.location,
        found.geofence_name,
    )  # fmt: skip
    events.extras[at] = found.extra
    events.device_us[at], events.server_us[at] = found.device_us, found.server_us
    events.latitudes[at], events.longitudes[at] = found.latitude, found.longitude


def _only(column: Any, chosen: Bools, listed: list[bool]) -> Any:
    return column[chosen] if isinstance(column, np.ndarray) else list(compress(column, listed))
