"""Warnings: what is suspicious about an event that is usable all the same. Such an event reaches its subscribers.

To add a warning, add it to `WARNINGS`, and what it looks at to `Facts`. The codes are on the wire, in tables and in
metric labels: their number is bounded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

ZERO_IMEI = "0" * 15
_YEAR_2010_US = 1_262_304_000_000_000


class Facts(NamedTuple):
    """What warnings are about, of one event or, as arrays of one length, of many."""

    latitude: Any  # degrees
    longitude: Any
    device_us: Any  # µs since the epoch
    server_us: Any
    latest_plausible_us: Any  # arrival plus the clock skew that is normal
    imei_zero: Any
    imei_check_digit_wrong: Any
    location_missing: Any
    type_normalised: Any
    time_cut: Any
    duplicate_keys: Any


@dataclass(frozen=True)
class EventWarning:
    """One warning; `holds` works on the facts of one event and on columns alike."""

    code: str
    description: str
    holds: Callable[[Facts], Any]


WARNINGS = (
    EventWarning(
        "position_zero",
        "Coordinates are 0,0: most devices send this without a satellite fix",
        lambda f: (f.latitude == 0) & (f.longitude == 0),
    ),
    EventWarning(
        "device_time_before_2010",
        "Device_Time is before 2010: most likely the device's clock was reset",
        lambda f: f.device_us < _YEAR_2010_US,
    ),
    EventWarning(
        "clock_ahead",
        "Server_Time or Device_Time is later than the arrival, beyond EVENTPUSH_FUTURE_SKEW_S",
        lambda f: (f.server_us > f.latest_plausible_us) | (f.device_us > f.latest_plausible_us),
    ),
    EventWarning("imei_zero", "the IMEI is all zeros: the device does not know its own", lambda f: f.imei_zero),
    EventWarning(
        "imei_check_digit",
        "the IMEI's check digit is wrong (Luhn, 3GPP TS 23.003 annex B)",
        lambda f: f.imei_check_digit_wrong,
    ),
    EventWarning("location_missing", "Location is null or missing", lambda f: f.location_missing),
    EventWarning(
        "type_normalised",
        "the event type was not sent in its normal form: see event_as_sent",
        lambda f: f.type_normalised,
    ),
    EventWarning("time_cut", "a time had digits beyond microseconds, which were cut", lambda f: f.time_cut),
    EventWarning(
        "duplicate_keys", "the object has a name more than once; the last value counts", lambda f: f.duplicate_keys
    ),
)
