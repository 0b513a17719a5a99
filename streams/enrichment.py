"""What is added to a valid event: place, time zone, the IMEI's facts, delays, kind, and the device's registry entry."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import tzfpy
from h3.api.basic_int import latlng_to_cell

from schemas import times
from schemas.event_types import kind_of
from schemas.events import CleanEvent, RawPosition, ValidEvent

_MINUTE_US = 60_000_000
_QUARTER_US = 900_000_000  # no zone changes its offset within a quarter of an hour


class Device(msgspec.Struct, frozen=True, gc=False):
    """A device's entry in the registry; what is not known is None."""

    vehicle: str | None = None
    fleet: str | None = None
    driver: str | None = None


UNKNOWN_DEVICE = Device()


def enrich(
    event: ValidEvent,
    event_id: str,
    received_us: int,
    receipt_id: str | None,
    raw: RawPosition,
    devices: Mapping[str, Device],
) -> CleanEvent:
    """The event as it stands on the topics. `received_us`: arrival, in µs since the epoch."""
    latitude, longitude, device_us = event.latitude, event.longitude, event.device_us
    zone = tzfpy.get_tz(longitude, latitude) or "UTC"
    offset_minutes, offset_text = _offset(zone, device_us // _QUARTER_US)
    local_minute = times.minute_text(device_us // _MINUTE_US + offset_minutes)
    category, severity = kind_of(event.event)
    imei_valid, tac = _imei_facts(event.imei)
    device = devices.get(event.imei, UNKNOWN_DEVICE)
    return CleanEvent(
        event_id,
        event.event,
        event.changes,
        event.imei,
        event.device_time,
        event.server_time,
        times.rfc3339(received_us),
        latitude,
        longitude,
        event.location,
        event.geofence_name,
        category,
        severity,
        latlng_to_cell(latitude, longitude, 7),
        latlng_to_cell(latitude, longitude, 9),
        zone,
        local_minute + event.device_time[16:26] + offset_text,
        imei_valid,
        tac,
        (event.server_us - device_us) // 1000,
        (received_us - event.server_us) // 1000,
        device.vehicle,
        device.fleet,
        device.driver,
        event.extra,
        receipt_id,
        raw,
    )


@lru_cache(maxsize=65_536)
def _offset(zone: str, quarter: int) -> tuple[int, str]:
    """The zone's offset from UTC in a quarter of an hour (counted since the epoch): in minutes and as `+05:30`."""
    try:
        offset = datetime.fromtimestamp(quarter * 900, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    except (ZoneInfoNotFoundError, OverflowError):  # a zone newer than our tzdata, or the year 10000
        offset = None
    minutes = 0 if offset is None else int(offset.total_seconds()) // 60
    sign, size = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return minutes, f"{sign}{size // 60:02d}:{size % 60:02d}"


@lru_cache(maxsize=262_144)
def _imei_facts(imei: str) -> tuple[bool, str]:
    """Whether the check digit is right, and the type allocation code (3GPP TS 23.003, 6.2.1 and annex B)."""
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(imei)]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0, imei[:8]
