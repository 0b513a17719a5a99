"""The rules of an event, and what an event is once it keeps them. Pure: bytes and time in, event or violations out.

The ingress judges with this in strict mode and for the dry run, and the stream stage judges every event with it that is
not plainly valid (`streams.decoding`).

Sources: the Events Push API ("Payload Field Definitions", "Timestamp Format", "Validation Rules"); bounds of strings
and the future skew are ours.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from schemas import times
from schemas.events import (
    COORDINATES_MAX,
    EVENT_MAX,
    GEOFENCE_MAX,
    INT64_MAX,
    INT64_MIN,
    LOCATION_MAX,
    PAYLOAD_BYTES_MAX,
    SENT_NAME,
    ValidEvent,
    Violation,
)
from schemas.reasons import Reason

_anything = msgspec.json.Decoder()
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_FOUND_MAX = 100
#: What coordinates may be written with, and how long they may be.
WELL_WRITTEN = re.compile(rf"[0-9., -]{{0,{COORDINATES_MAX}}}")

UTC_FORMAT = "YYYY-MM-DDTHH:MM:SS.SSSSSS+0000"


def validate(raw: bytes, received_us: int, future_skew_us: int) -> ValidEvent | list[Violation]:
    """The event in these bytes, or every rule that it breaks (at least one).

    `received_us` is its arrival in µs since the epoch; its times may lie at most `future_skew_us` after that.
    Any bytes give an outcome; nothing is raised.
    """
    if len(raw) > PAYLOAD_BYTES_MAX:
        return [Violation(Reason.TOO_LARGE, "", f"{len(raw)} bytes", f"at most {PAYLOAD_BYTES_MAX} bytes")]
    try:
        value = _anything.decode(raw)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return [Violation(Reason.NOT_JSON, "", _shown(raw), f"JSON in UTF-8 ({detail})")]
    if not isinstance(value, dict):
        return [Violation(Reason.NOT_OBJECT, "", _shown(value), "a JSON object")]
    violations = list(_violations(value, received_us + future_skew_us))
    if violations:
        return violations
    latitude, longitude = position(value["Coordinates"])
    device_us, server_us = times.parse(value["Device_Time"]), times.parse(value["Server_Time"])
    return ValidEvent(
        value["Event"],
        value["Changes"],
        value["IMEI"],
        device_us,
        server_us,
        times.rfc3339(device_us),
        times.rfc3339(server_us),
        latitude,
        longitude,
        value["Location"],
        value.get("Geofence_Name"),
        unknown_fields(raw),
    )


def position(coordinates: str) -> tuple[float, float]:
    """Latitude and longitude of "lat,lon" in decimal degrees; ValueError if it is not that, or out of range."""
    if not WELL_WRITTEN.fullmatch(coordinates):
        raise ValueError(coordinates)
    latitude_text, _, longitude_text = coordinates.partition(",")
    latitude, longitude = float(latitude_text), float(longitude_text)
    if not (-90.0 <= latitude <= 90.0 and -180.0 <= longitude <= 180.0):
        raise OutOfRangeError(coordinates)
    return latitude, longitude


class OutOfRangeError(ValueError):
    """Well written, but there is no such place."""


def unknown_fields(raw: bytes) -> dict[str, msgspec.Raw]:
    """The fields that the contract does not know, their bytes as they came."""
    known = SENT_NAME.values()
    return {name: msgspec.Raw(value).copy() for name, value in _members.decode(raw).items() if name not in known}


def _violations(value: Mapping[str, Any], latest_us: int) -> Iterator[Violation]:
    yield from _text(value, "Event", EVENT_MAX, may_be_blank=False)
    yield from _changes(value)
    yield from _imei(value)
    yield from _text(value, "Location", LOCATION_MAX)
    if value.get("Geofence_Name") is not None:
        yield from _text(value, "Geofence_Name", GEOFENCE_MAX)
    yield from _coordinates(value)
    yield from _times(value, latest_us)


def _missing_or_not(value: Mapping[str, Any], field: str, wanted: type, expected: str) -> Violation | None:
    """The violation if the field is not there or not of the wanted type."""
    if field not in value:
        return Violation(Reason.MISSING, field, "nothing", expected)
    if type(value[field]) is not wanted:  # bool is an int in Python, but not in JSON
        return Violation(Reason.WRONG_TYPE, field, _shown(value[field]), expected)
    return None


def _text(value: Mapping[str, Any], field: str, longest: int, *, may_be_blank: bool = True) -> Iterator[Violation]:
    expected = f"a string of at most {longest} characters"
    if wrong := _missing_or_not(value, field, str, expected):
        yield wrong
        return
    text = value[field]
    if not may_be_blank and (not text or text.isspace()):
        yield Violation(Reason.EMPTY, field, _shown(text), "a string that is not empty")
    if len(text) > longest:
        yield Violation(Reason.TOO_LONG, field, f"{len(text)} characters", expected)
    if "\0" in text:
        yield Violation(Reason.BAD_CHARACTERS, field, _shown(text), "a string without NUL")


def _changes(value: Mapping[str, Any]) -> Iterator[Violation]:
    expected = "an integer of 64 bits"
    if wrong := _missing_or_not(value, "Changes", int, expected):
        yield wrong
    elif not INT64_MIN <= value["Changes"] <= INT64_MAX:
        yield Violation(Reason.OUT_OF_RANGE, "Changes", _shown(value["Changes"]), expected)


def _imei(value: Mapping[str, Any]) -> Iterator[Violation]:
    expected = "a string of 15 digits"
    if wrong := _missing_or_not(value, "IMEI", str, expected):
        yield wrong
        return
    imei = value["IMEI"]
    if not (len(imei) == 15 and imei.isascii() and imei.isdigit()):
        yield Violation(Reason.BAD_FORMAT, "IMEI", _shown(imei), expected)


def _coordinates(value: Mapping[str, Any]) -> Iterator[Violation]:
    expected = '"latitude,longitude" in decimal degrees'
    if wrong := _missing_or_not(value, "Coordinates", str, expected):
        yield wrong
        return
    try:
        position(value["Coordinates"])
    except OutOfRangeError:
        expected = "latitude from -90 to 90, longitude from -180 to 180"
        yield Violation(Reason.OUT_OF_RANGE, "Coordinates", _shown(value["Coordinates"]), expected)
    except ValueError:
        yield Violation(Reason.BAD_FORMAT, "Coordinates", _shown(value["Coordinates"]), expected)


def _times(value: Mapping[str, Any], latest_us: int) -> Iterator[Violation]:
    parsed: dict[str, int] = {}
    for field in ("Device_Time", "Server_Time"):
        expected = f"a time in UTC, {UTC_FORMAT}"
        if wrong := _missing_or_not(value, field, str, expected):
            yield wrong
            continue
        try:
            parsed[field] = times.parse(value[field])
        except ValueError:
            yield Violation(Reason.BAD_FORMAT, field, _shown(value[field]), expected)
    for field, us in parsed.items():
        if us < 0:
            yield Violation(Reason.OUT_OF_RANGE, field, _shown(value[field]), "a time since 1970")
        if us > latest_us:
            yield Violation(
                Reason.IN_FUTURE, field, _shown(value[field]), f"a time not after {times.rfc3339(max(0, latest_us))}"
            )
    if len(parsed) == 2 and parsed["Device_Time"] > parsed["Server_Time"]:
        yield Violation(
            Reason.DEVICE_AFTER_SERVER,
            "Device_Time",
            _shown(value["Device_Time"]),
            f"a time not after Server_Time, {_shown(value['Server_Time'])}",
        )


def _shown(value: object) -> str:
    """A bounded picture of what was found, as JSON where that is possible."""
    if isinstance(value, bytes):
        return value[:_FOUND_MAX].decode("utf-8", "replace")
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return f"an integer of {value.bit_length()} bits"
    text = msgspec.json.encode(value).decode("utf-8", "replace")
    return text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + "…"
