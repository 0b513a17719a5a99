"""The event, declared once: as the sender writes it, and as it stands on the topics and in ClickHouse.

Decoders, validation, the published contracts, tables and views, the sink's encoder, the simulator's events and the
documents' tables are derived from the two declarations here, by name.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from schemas import rules
from schemas.event_types import CATEGORIES, SEVERITIES
from schemas.fields import (
    INTEGER_CODEC,
    POSITION,
    TEXT_CODEC,
    TIME,
    TIME_CODEC,
    WORD,
    WORD_OR_NULL,
    Field,
    SentField,
    fields_of,
)

# --- as the sender writes it ("Payload Field Definitions") ---------------------------------------------------------

EVENT = SentField("Event", str, "type of event", "overspeed",
                  (rules.NOT_BLANK, rules.at_most(rules.EVENT_MAX), rules.PRINTABLE))  # fmt: skip
CHANGES = SentField("Changes", int, "the type's own value: litres, km/h above the limit, …", 50,
                    (rules.INTEGER_OF_64_BITS,))  # fmt: skip
DEVICE_TIME = SentField("Device_Time", str, "when it happened, by the device's clock",
                        "2024-06-28T17:52:13.000000+0000", format=rules.UTC_TIME)  # fmt: skip
IMEI = SentField("IMEI", str, "IMEI of the reporting device", "350612075195931", (rules.IMEI_DIGITS,))
SERVER_TIME = SentField("Server_Time", str, "when the platform received it",
                        "2024-06-28T18:49:45.000000+0000", format=rules.UTC_TIME)  # fmt: skip
COORDINATES = SentField("Coordinates", str, "latitude,longitude in decimal degrees, WGS 84", "22.927968,75.533275",
                        (rules.at_most(rules.COORDINATES_MAX),), rules.POSITION)  # fmt: skip
LOCATION = SentField(
    "Location", str, "address for people",
    "Indore - Depalpur - Ingoriya Road, Kharsora, Depalpur Tahsil, Indore District, Madhya Pradesh, India",
    (rules.at_most(rules.LOCATION_MAX), rules.PRINTABLE), nullable=True,
)  # fmt: skip
GEOFENCE_NAME = SentField("Geofence_Name", str, "geofence name if applicable", None,
                          (rules.at_most(rules.GEOFENCE_MAX), rules.PRINTABLE), nullable=True)  # fmt: skip

#: The fields of the sender's API by name, in its order.
SENT_FIELDS: Mapping[str, SentField] = {
    sent.name: sent for sent in (EVENT, CHANGES, DEVICE_TIME, IMEI, SERVER_TIME, COORDINATES, LOCATION, GEOFENCE_NAME)
}


# --- as it stands on the topics and in ClickHouse ------------------------------------------------------------------

_UUID = {"format": "uuid"}
_DATE_TIME = {"format": "date-time"}
_H3_CELL = {"pattern": "^8[0-9a-f]{14}$"}


class RawPosition(msgspec.Struct, gc=False, frozen=True):
    """The source record on the raw topic."""

    topic: str
    partition: int
    offset: int


class Event(msgspec.Struct, gc=False, frozen=True):
    """A valid, unique, enriched event. Times are RFC 3339 in UTC with microseconds, but for `device_time_local`."""

    event_id: Annotated[str, Field("UUID of the event's identity: the same after every retry and replay", "UUID",
                                   schema=_UUID)]  # fmt: skip
    event: Annotated[str, Field("event type, normalised", WORD, sent=EVENT, part_of="identity")]
    changes: Annotated[int, Field("the type's own value: litres, km/h above the limit, …", "Int64", INTEGER_CODEC,
                                  sent=CHANGES, part_of="content")]  # fmt: skip
    imei: Annotated[str, Field("15 digits", "String", TEXT_CODEC, sent=IMEI, part_of="identity",
                               schema={"pattern": "^[0-9]{15}$"})]  # fmt: skip
    device_time: Annotated[str, Field("when it happened, by the device's clock", TIME, TIME_CODEC, sent=DEVICE_TIME,
                                      part_of="identity", schema=_DATE_TIME)]  # fmt: skip
    server_time: Annotated[str, Field("when the platform received it", TIME, TIME_CODEC, sent=SERVER_TIME,
                                      schema=_DATE_TIME)]  # fmt: skip
    received_at: Annotated[str, Field("when the ingress accepted it", TIME, TIME_CODEC, schema=_DATE_TIME)]
    latitude: Annotated[float, Field("degrees north, WGS 84", "Float64", TEXT_CODEC, sent=COORDINATES,
                                     part_of="content", schema={"minimum": -90, "maximum": 90})]  # fmt: skip
    longitude: Annotated[float, Field("degrees east, WGS 84", "Float64", TEXT_CODEC, sent=COORDINATES,
                                      part_of="content", schema={"minimum": -180, "maximum": 180})]  # fmt: skip
    location: Annotated[str | None, Field("address for people, as sent; NULL when none was sent", "Nullable(String)",
                                          TEXT_CODEC, sent=LOCATION)]  # fmt: skip
    geofence_name: Annotated[str | None, Field("NULL when none was sent", WORD_OR_NULL, sent=GEOFENCE_NAME,
                                               part_of="identity")]  # fmt: skip
    category: Annotated[str, Field(f"what the type is about: {', '.join(CATEGORIES)}", WORD,
                                   schema={"enum": list(CATEGORIES)})]  # fmt: skip
    severity: Annotated[str, Field("info, warning or critical", WORD, schema={"enum": list(SEVERITIES)})]
    h3_r7: Annotated[str, Field("H3 cell of resolution 7, as geoToH3 gives it", "UInt64", TEXT_CODEC, schema=_H3_CELL,
                                formerly=int)]  # fmt: skip
    h3_r9: Annotated[str, Field("H3 cell of resolution 9", "UInt64", TEXT_CODEC, schema=_H3_CELL, formerly=int)]
    time_zone: Annotated[str, Field("IANA name at the coordinates", WORD)]
    device_time_local: Annotated[str, Field(
        "the wall clock of device_time in time_zone; no instant: do not convert it", TIME, TIME_CODEC,
        schema=_DATE_TIME)]  # fmt: skip
    imei_valid: Annotated[bool, Field("whether the IMEI's check digit is right", "Bool")]
    tac: Annotated[str, Field("type allocation code: the IMEI's first eight digits", WORD)]
    device_delay_ms: Annotated[int, Field("device_time to server_time", "Int64", INTEGER_CODEC)]
    platform_delay_ms: Annotated[int, Field("server_time to received_at; negative if the platform's clock is ahead",
                                            "Int64", INTEGER_CODEC)]  # fmt: skip
    vehicle: Annotated[str | None, Field("the device's vehicle in the registry on arrival", WORD_OR_NULL)]
    fleet: Annotated[str | None, Field("the device's fleet in the registry on arrival", WORD_OR_NULL)]
    driver: Annotated[str | None, Field("the device's driver in the registry on arrival", WORD_OR_NULL)]
    event_as_sent: Annotated[str | None, Field("the event type as it was sent, where `event` differs", WORD_OR_NULL,
                                               since="0.2.0")]  # fmt: skip
    warnings: Annotated[list[str], Field("what is suspicious about the event: codes, see docs/warnings.md",
                                         f"Array({WORD})", TEXT_CODEC, since="0.2.0", missing=())]  # fmt: skip
    extra: Annotated[msgspec.Raw, Field("JSON object of the fields that the contract does not know", "String",
                                        TEXT_CODEC, schema={"type": "object"})]  # fmt: skip
    receipt_id: Annotated[str | None, Field("the id in the response's X-Receipt-Id header", "Nullable(String)",
                                            TEXT_CODEC)]  # fmt: skip
    sender: Annotated[str | None, Field(
        "name of the bearer token or signature secret of the request; NULL when neither is required", WORD_OR_NULL,
        since="0.2.0")]  # fmt: skip
    raw: Annotated[RawPosition, Field("source record on the raw topic: topic, partition, offset", POSITION,
                                      TEXT_CODEC)]  # fmt: skip


#: The published fields of an event's content, unless EVENTPUSH_CONTENT_FIELDS says otherwise.
CONTENT = tuple(name for name, field in fields_of(Event).items() if field.part_of == "content")

#: A payload's known fields, texts and integers as they are; UNSET where one is missing that may be.
SentEvent: Any = msgspec.defstruct(
    "SentEvent",
    [
        (sent.attribute, sent.type | None | msgspec.UnsetType, msgspec.UNSET)
        if sent.nullable
        else (sent.attribute, sent.type)
        for sent in sorted(SENT_FIELDS.values(), key=lambda sent: sent.nullable)
    ],
    rename={sent.attribute: sent.name for sent in SENT_FIELDS.values()}.get,
    gc=False,
    frozen=True,
)
#: The same, without any field that the contract does not know.
StrictSentEvent: Any = msgspec.defstruct(
    "StrictSentEvent", [], bases=(SentEvent,), forbid_unknown_fields=True, gc=False, frozen=True
)
