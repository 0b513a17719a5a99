"""The pipeline's own logic for one event, for peers that work event by event: validate, identify, enrich."""

from collections.abc import Sequence
from hashlib import blake2b
from struct import pack
from typing import NamedTuple

import msgspec
import tzfpy
from h3.api.basic_int import latlng_to_cell

from schemas import times
from schemas.event_types import kind_of
from schemas.events import CleanEvent, RawPosition, StrictlySentEvent, ValidEvent, Violation
from schemas.identity import digest_of, digest_of_payload, uuid_text
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID, RAW
from schemas.validation import position, validate
from streams.enrichment import UNKNOWN_DEVICE, _imei_facts, _local_minute

_FUTURE_SKEW_US = 300_000_000
_MINUTE_US = 60_000_000
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StrictlySentEvent).decode


class Identified(NamedTuple):
    """An event or a dead letter, before anybody has looked whether it is a duplicate."""

    identity: str
    content: int
    event: ValidEvent | None
    violations: list[Violation]
    received_us: int
    receipt_id: str | None


def identify(value: bytes, headers: Sequence[tuple[str, bytes]]) -> Identified:
    """Validate the bytes and derive their identity."""
    received_us, receipt_id = 0, None
    for name, header in headers:
        if name == HEADER_ARRIVAL_US:
            received_us = int(header)
        elif name == HEADER_RECEIPT_ID:
            receipt_id = header.decode()
    latest_us = received_us + _FUTURE_SKEW_US
    found = _plainly_valid(value, latest_us) or validate(value, received_us, _FUTURE_SKEW_US)
    if isinstance(found, ValidEvent):
        digest = digest_of(found.imei, found.device_us, found.event, found.geofence_name)
        return Identified(uuid_text(digest), _content_of(found), found, [], received_us, receipt_id)
    return Identified(uuid_text(digest_of_payload(value)), 1, None, found, received_us, receipt_id)


def _plainly_valid(raw: bytes, latest_us: int) -> ValidEvent | None:
    """Validate one event the short way: a third of the time that the rules take one by one."""
    try:
        sent = _decode(raw)
        device_us, server_us = times.parse(sent.device_time), times.parse(sent.server_time)
        latitude, longitude = position(sent.coordinates)
    except (ValueError, RecursionError):
        return None
    event, imei, geofence = sent.event, sent.imei, sent.geofence_name
    if (
        not 0 <= device_us <= server_us <= latest_us
        or not (len(imei) == 15 and imei.isascii() and imei.isdigit())
        or not 0 < len(event) <= 128
        or event.isspace()
        or len(sent.location) > 2048
        or "\0" in event + sent.location + (geofence or "")
        or len(geofence or "") > 512
    ):
        return None
    device_time, server_time = (
        times.canonical(sent.device_time, device_us),
        times.canonical(sent.server_time, server_us),
    )
    return ValidEvent(
        event, sent.changes, imei, device_us, server_us, device_time, server_time, latitude, longitude, sent.location,
        geofence, {},
    )  # fmt: skip


def _content_of(event: ValidEvent) -> int:
    packed = pack("<qdd", event.changes, event.latitude + 0.0, event.longitude + 0.0)
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")


def clean(identified: Identified, partition: int, offset: int) -> bytes:
    """Build the enriched event as it is on the topics."""
    event, received_us = identified.event, identified.received_us
    assert event is not None
    zone = tzfpy.get_tz(event.longitude, event.latitude) or "UTC"
    local_minute, offset_text = _local_minute(zone, event.device_us // _MINUTE_US)
    category, severity = kind_of(event.event)
    imei_valid, tac = _imei_facts(event.imei)
    device = UNKNOWN_DEVICE
    return encode(
        CleanEvent(
            identified.identity, event.event, event.changes, event.imei, event.device_time, event.server_time,
            times.rfc3339(received_us), event.latitude, event.longitude, event.location, event.geofence_name,
            category, severity, latlng_to_cell(event.latitude, event.longitude, 7),
            latlng_to_cell(event.latitude, event.longitude, 9), zone,
            local_minute + event.device_time[16:26] + offset_text, imei_valid, tac,
            (event.server_us - event.device_us) // 1000, (received_us - event.server_us) // 1000,
            device.vehicle, device.fleet, device.driver, event.extra, identified.receipt_id,
            RawPosition(RAW, partition, offset),
        )
    )  # fmt: skip


def dead_letter(identified: Identified, value: bytes) -> bytes:
    """Build a dead letter with every reason and the bytes."""
    return encode(
        {
            "dead_letter_id": identified.identity,
            "reasons": identified.violations,
            "payload": value.decode("utf-8", "replace"),
        }
    )
