"""What is added to valid events: place, time zone, the IMEI's facts, delays, kind, warnings, and the device's record.

By the column, so that each library is called in one sweep over the batch. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import tzfpy
from h3.api.basic_int import latlng_to_cell

from schemas import times
from schemas.column_types import Bools
from schemas.device import UNKNOWN_DEVICE, Device
from schemas.event import Event, RawPosition
from schemas.event_types import type_of
from schemas.event_warnings import WARNINGS, ZERO_IMEI, Facts
from schemas.identity import is_check_digit_right
from schemas.time_columns import rfc3339_texts
from streams.decoding import ValidEvents, to_microseconds

_MINUTE_US = 60_000_000
_MINUTE, _CLOCK = len("2024-06-28T17:52"), len("2024-06-28T17:52:13.000000")

_TAC_DIGITS = 8  # type allocation code (3GPP TS 23.003, 6.2.1)

Column = Sequence[Any]


class Source(NamedTuple):
    """Where records come from, and what is known besides them."""

    topic: str
    devices: Mapping[str, Device]  # by IMEI
    future_skew_us: int  # how far a clock may be ahead without a warning


def enrich(events: ValidEvents, event_ids: Sequence[str], source: Source) -> list[Event]:
    """Return the events as they stand on the topics."""
    kinds = [type_of(event) for event in events.event]
    imei_valid = list(map(_is_imei_valid, events.imei))
    received_at = rfc3339_texts(events.received_us)
    devices = [
        device if device.intervals is None else device.at(moment)
        for device, moment in zip(
            map(source.devices.get, events.imei, repeat(UNKNOWN_DEVICE)), received_at, strict=True
        )
    ]
    latitude, longitude = events.latitude.tolist(), events.longitude.tolist()
    time_zone = [zone or "UTC" for zone in map(tzfpy.get_tz, longitude, latitude)]
    columns: dict[str, Any] = {
        "event_id": event_ids,
        "event": events.event,
        "changes": events.changes,
        "imei": events.imei,
        "device_time": to_microseconds(events.device_time),
        "server_time": to_microseconds(events.server_time),
        "received_at": received_at,
        "latitude": latitude,
        "longitude": longitude,
        "location": events.location,
        "geofence_name": events.geofence_name,
        "category": [kind.category for kind in kinds],
        "severity": [kind.severity for kind in kinds],
        "h3_r7": _cell_texts(map(latlng_to_cell, latitude, longitude, repeat(7))),
        "h3_r9": _cell_texts(map(latlng_to_cell, latitude, longitude, repeat(9))),
        "time_zone": time_zone,
        "device_time_local": _local_times(events, time_zone),
        "imei_valid": imei_valid,
        "tac": [imei[:_TAC_DIGITS] for imei in events.imei],
        "device_delay_ms": ((events.server_us - events.device_us) // 1000).tolist(),
        "platform_delay_ms": ((events.received_us - events.server_us) // 1000).tolist(),
        "vehicle": [device.vehicle for device in devices],
        "fleet": [device.fleet for device in devices],
        "driver": [device.driver for device in devices],
        "event_as_sent": events.event_as_sent,
        "warnings": _warnings(events, imei_valid, source.future_skew_us),
        "extra": events.extra,
        "receipt_id": events.receipt_ids,
        "sender": events.senders,
        "raw": [
            RawPosition(source.topic, partition, record.offset)
            for partition, record in zip(events.partitions.tolist(), events.records, strict=True)
        ],
    }
    return list(map(Event, *(columns[name] for name in Event.__struct_fields__)))


def _cell_texts(cells: Iterable[int]) -> list[str]:
    """Format each H3 cell as H3 does: 15 hexadecimal digits, the first of the 16 being 0."""
    digits = np.array(list(cells), ">u8").tobytes().hex()
    return [digits[at : at + 15] for at in range(1, len(digits), 16)]


def _warnings(events: ValidEvents, imei_valid: list[bool], future_skew_us: int) -> Column:
    """Return the codes of each event's warnings; nearly always there are none."""
    facts = Facts(
        latitude=events.latitude,
        longitude=events.longitude,
        device_us=events.device_us,
        server_us=events.server_us,
        latest_plausible_us=events.received_us + future_skew_us,
        imei_zero=_are(ZERO_IMEI, events.imei),
        imei_check_digit_wrong=~np.array(imei_valid, np.bool_),
        location_missing=_are(None, events.location),
        type_normalised=np.array([sent is not None for sent in events.event_as_sent], np.bool_),
        time_cut=events.time_cut,
        duplicate_keys=events.duplicate_keys,
    )
    warnings: list[list[str]] = [_NO_WARNINGS] * len(events.event)
    for warning in WARNINGS:
        held = warning.holds(facts)
        if held.any():
            for at in np.flatnonzero(held).tolist():
                warnings[at] = [*warnings[at], warning.code]
    return warnings


_NO_WARNINGS: list[str] = []


def _are(value: str | None, column: Column) -> Bools:
    """Mark the column's values that are this one; often none is."""
    if value not in column:
        return np.zeros(len(column), np.bool_)
    return np.array([one == value for one in column], np.bool_)


def _local_times(events: ValidEvents, zones: Sequence[str]) -> list[str]:
    """Format RFC 3339 with each zone's offset at that instant: whole minutes, so the seconds are those of UTC."""
    local = map(_local_minute, zones, (events.device_us // _MINUTE_US).tolist())
    return [
        f"{minute}{device_time[_MINUTE:_CLOCK]}{offset}"
        for (minute, offset), device_time in zip(local, events.device_time, strict=True)
    ]


@lru_cache(maxsize=262_144)
def _local_minute(zone: str, minute: int) -> tuple[str, str]:
    """Return a minute since the epoch in the zone's time, as `2024-06-28T23:22`, and its UTC offset, as `+05:30`."""
    instant = datetime.fromtimestamp(minute * 60, UTC)
    try:
        offset = instant.astimezone(ZoneInfo(zone)).utcoffset()
    except (ZoneInfoNotFoundError, OverflowError):  # a zone newer than our tzdata, or the year 10000
        offset = None
    minutes = 0 if offset is None else int(offset.total_seconds()) // 60
    sign, size = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return times.minute_text(minute + minutes), f"{sign}{size // 60:02d}:{size % 60:02d}"


_is_imei_valid = lru_cache(maxsize=262_144)(is_check_digit_right)
