"""The event in its three shapes: as the sender writes it, as it stands on the topics, and as a dead letter.

Field names of `CleanEvent` and `DeadLetter` are those of the JSON on the topics and of ClickHouse's columns.
"""

from typing import Annotated

import msgspec

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

#: Bounds of strings, in characters. The contract sets none; these are far above what a platform sends.
EVENT_MAX, LOCATION_MAX, GEOFENCE_MAX, COORDINATES_MAX = 128, 2048, 512, 64

#: Bound of a payload, in bytes: enriched, or in a dead letter, it still fits into a record of our topics (4 MiB).
PAYLOAD_BYTES_MAX = 3 * 2**20


#: The contract's names of the fields.
SENT_NAME = {
    "event": "Event",
    "changes": "Changes",
    "device_time": "Device_Time",
    "imei": "IMEI",
    "server_time": "Server_Time",
    "coordinates": "Coordinates",
    "location": "Location",
    "geofence_name": "Geofence_Name",
}


class SentEvent(msgspec.Struct, rename=SENT_NAME.get, gc=False, frozen=True):
    """The event as the Events Push API defines it ("Payload Field Definitions"); times and coordinates still text."""

    event: str
    changes: Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
    device_time: str
    imei: str
    server_time: str
    coordinates: str
    location: str
    geofence_name: str | None = None


class StrictlySentEvent(SentEvent, forbid_unknown_fields=True, gc=False, frozen=True):
    """The same without any field that the contract does not know."""


class ValidEvent(msgspec.Struct, gc=False, frozen=True):
    """An event that keeps every rule, parsed. Times in µs since the epoch, UTC; coordinates in degrees, WGS 84."""

    event: str
    changes: int
    imei: str
    device_us: int
    server_us: int
    device_time: str  # RFC 3339
    server_time: str
    latitude: float
    longitude: float
    location: str
    geofence_name: str | None
    extra: dict[str, msgspec.Raw]


class RawPosition(msgspec.Struct, gc=False, frozen=True):
    """Where the bytes lie that something came of."""

    topic: str
    partition: int
    offset: int


class CleanEvent(msgspec.Struct, gc=False, frozen=True):
    """A valid, unique, enriched event. Times are RFC 3339 in UTC with microseconds, but for `device_time_local`."""

    event_id: str  # UUID, a function of the identity alone
    event: str
    changes: int
    imei: str
    device_time: str
    server_time: str
    received_at: str
    latitude: float
    longitude: float
    location: str
    geofence_name: str | None
    category: str
    severity: str
    h3_r7: int  # H3 cell of resolution 7, the integer that ClickHouse's geoToH3 gives
    h3_r9: int
    time_zone: str  # IANA name at the coordinates
    device_time_local: str  # RFC 3339 with the zone's offset at that instant
    imei_valid: bool  # the check digit is right (Luhn, 3GPP TS 23.003 annex B)
    tac: str  # type allocation code: the first eight digits (3GPP TS 23.003, 6.2.1)
    device_delay_ms: int  # Device_Time to Server_Time
    platform_delay_ms: int  # Server_Time to arrival; negative when the platform's clock is ahead
    vehicle: str | None
    fleet: str | None
    driver: str | None
    extra: dict[str, msgspec.Raw]  # fields that the contract does not know
    receipt_id: str | None
    raw: RawPosition


class Violation(msgspec.Struct, gc=False, frozen=True):
    """One broken rule: reason code, the payload's field ("" for the whole), what was found, what is expected."""

    code: str
    field: str
    found: str
    expected: str


class Conflict(msgspec.Struct, gc=False, frozen=True):
    """The event that was accepted under the same identity: `event_id` is that of its row and message."""

    event_id: str


class DeadLetter(msgspec.Struct, gc=False, frozen=True):
    """What could not become an event, with every reason at once and the bytes as they came."""

    dead_letter_id: str  # UUID, a function of stage and raw position
    stage: str  # streams or sink
    reasons: list[Violation]
    event: str | None  # as sent, where it is a string
    imei: str | None
    received_at: str
    receipt_id: str | None
    payload: str  # the bytes as text, or in base64
    payload_encoding: str  # utf-8 or base64
    conflict_with: Conflict | None
    raw: RawPosition
