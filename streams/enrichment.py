"""What is added to valid events: place, time zone, the IMEI's facts, delays, kind, and the device's registry entry.

By the column, so that each library is called in one sweep over the batch. Pure.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import tzfpy
from h3.api.basic_int import latlng_to_cell

from schemas import times
from schemas.event_types import kind_of
from schemas.events import CleanEvent, RawPosition
from streams.decoding import ValidEvents
from streams.timestamp_columns import rfc3339_texts

_MINUTE_US = 60_000_000
_MINUTE, _CLOCK = len("2024-06-28T17:52"), len("2024-06-28T17:52:13.000000")


class Device(msgspec.Struct, frozen=True, gc=False):
    """A device's entry in the registry; what is not known is None."""

    vehicle: str | None = None
    fleet: str | None = None
    driver: str | None = None


UNKNOWN_DEVICE = Device()


def enrich(
    events: ValidEvents, event_ids: Sequence[str], topic: str, partition: int, devices: Mapping[str, Device]
) -> list[CleanEvent]:
    """The events as they stand on the topics; `topic` and `partition` are where their records lie."""
    sent = events.sent
    latitudes, longitudes = events.latitudes.tolist(), events.longitudes.tolist()
    zones = [zone or "UTC" for zone in map(tzfpy.get_tz, longitudes, latitudes)]
    kinds = [kind_of(event.event) for event in sent]
    imeis = [_imei_facts(event.imei) for event in sent]
    known = [devices.get(event.imei, UNKNOWN_DEVICE) for event in sent]
    return list(
        map(
            CleanEvent,
            event_ids,
            [event.event for event in sent],
            [event.changes for event in sent],
            [event.imei for event in sent],
            [event.device_time[:_CLOCK] + "Z" for event in sent],
            [event.server_time[:_CLOCK] + "Z" for event in sent],
            rfc3339_texts(events.received_us),
            latitudes,
            longitudes,
            [event.location for event in sent],
            [event.geofence_name for event in sent],
            [kind.category for kind in kinds],
            [kind.severity for kind in kinds],
            map(latlng_to_cell, latitudes, longitudes, repeat(7)),
            map(latlng_to_cell, latitudes, longitudes, repeat(9)),
            zones,
            _local_times(events, zones),
            [valid for valid, _ in imeis],
            [tac for _, tac in imeis],
            ((events.server_us - events.device_us) // 1000).tolist(),
            ((events.received_us - events.server_us) // 1000).tolist(),
            [device.vehicle for device in known],
            [device.fleet for device in known],
            [device.driver for device in known],
            events.extras,
            events.receipt_ids,
            [RawPosition(topic, partition, record.offset) for record in events.records],
        )
    )


def _local_times(events: ValidEvents, zones: Sequence[str]) -> list[str]:
    """RFC 3339 with each zone's offset at that instant: an offset is whole minutes, so the seconds are those of UTC."""
    local = map(_local_minute, zones, (events.device_us // _MINUTE_US).tolist())
    return [
        f"{minute}{event.device_time[_MINUTE:_CLOCK]}{offset}"
        for (minute, offset), event in zip(local, events.sent, strict=True)
    ]


@lru_cache(maxsize=262_144)
def _local_minute(zone: str, minute: int) -> tuple[str, str]:
    """A minute since the epoch by the zone's clock, as `2024-06-28T23:22`, and its offset from UTC, as `+05:30`."""
    instant = datetime.fromtimestamp(minute * 60, UTC)
    try:
        offset = instant.astimezone(ZoneInfo(zone)).utcoffset()
    except (ZoneInfoNotFoundError, OverflowError):  # a zone newer than our tzdata, or the year 10000
        offset = None
    minutes = 0 if offset is None else int(offset.total_seconds()) // 60
    sign, size = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return times.minute_text(minute + minutes), f"{sign}{size // 60:02d}:{size % 60:02d}"


@lru_cache(maxsize=262_144)
def _imei_facts(imei: str) -> tuple[bool, str]:
    """Whether the check digit is right, and the type allocation code (3GPP TS 23.003, 6.2.1 and annex B)."""
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(imei)]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0, imei[:8]
