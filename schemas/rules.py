"""The rules of an event, each declared once: its code, its text, the check of one value and the check of a column.

To add a rule, write it here and name it at its field in `schemas.event`; a code that is new joins `Reason`. The checks
of one value and of a column, and the JSON Schema keywords, are compared with each other by `tests/unit/test_rules.py`.

Sources: the Events Push API ("Payload Field Definitions", "Timestamp Format", "Validation Rules"); bounds of strings
and the future skew are ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from schemas import event_types, positions, time_columns, times

_PIECE_TEXTS = 50  # a text that breaks a rule costs those of its piece time, not all

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

#: Bounds of strings, in characters. The contract sets none; these are far above what a platform sends.
EVENT_MAX, LOCATION_MAX, GEOFENCE_MAX, COORDINATES_MAX = 128, 2048, 512, 64

#: Bound of a payload, in bytes: enriched, or in a dead letter, it still fits into a record of our topics (4 MiB).
PAYLOAD_BYTES_MAX = 3 * 2**20


class Reason(StrEnum):
    """Why an event is a dead letter. The codes are on the wire, in tables and in metric labels: a bounded set."""

    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    MISSING = "missing"
    WRONG_TYPE = "wrong_type"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    BAD_CHARACTERS = "bad_characters"
    BAD_FORMAT = "bad_format"
    OUT_OF_RANGE = "out_of_range"
    DEVICE_AFTER_SERVER = "device_time_after_server_time"
    IN_FUTURE = "in_future"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    REFUSED_BY_CLICKHOUSE = "refused_by_clickhouse"


DESCRIPTION: dict[Reason, str] = {
    Reason.NOT_JSON: "the payload is not JSON in UTF-8 (RFC 8259)",
    Reason.NOT_OBJECT: "the JSON is not an object",
    Reason.MISSING: "a required field is missing",
    Reason.WRONG_TYPE: "the field's JSON type is not the contract's",
    Reason.EMPTY: "the string is empty or blank",
    Reason.TOO_LONG: "the string is longer than its bound",
    Reason.BAD_CHARACTERS: "the string contains NUL or an unpaired surrogate",
    Reason.BAD_FORMAT: "the string is not in the format that the contract asks for",
    Reason.OUT_OF_RANGE: "the number or position is out of range, or there is no such time",
    Reason.DEVICE_AFTER_SERVER: "Device_Time is later than Server_Time",
    Reason.IN_FUTURE: "the time is further in the future than is tolerated",
    Reason.CONFLICT: "an event with the same identity and different content was accepted before",
    Reason.TOO_LARGE: "the payload would not fit into a Kafka record once it is enriched",
    Reason.REFUSED_BY_CLICKHOUSE: "ClickHouse refused the row",
}


@dataclass(frozen=True)
class Rule:
    """One condition on one value.

    `suspects` returns the positions of a column's values that may break the rule: all that do, and cheaply none when,
    as nearly always, none does. `schema` holds the JSON Schema keywords that say the same; where they cannot say all
    of it, `schema_is_exact` is False, and they accept more.
    """

    code: Reason
    expected: str
    holds: Callable[[Any], bool]
    suspects: Callable[[Sequence[Any]], Sequence[int]]
    schema: Mapping[str, Any] = field(default_factory=dict)
    schema_is_exact: bool = True
    found: Callable[[Any], str] | None = None  # what to show of a value that breaks the rule, if not the value

    def broken_in(self, column: Sequence[Any]) -> list[int]:
        """Return the positions of the values that break the rule."""
        return [at for at in self.suspects(column) if not self.holds(column[at])]


@dataclass(frozen=True)
class Format:
    """How a text is read into a value.

    `parse` raises ValueError for another format, and `missing` if the text is well written but stands for nothing.
    `parse_column` returns the values, and the positions of the texts that it could not read: `parse` decides on those.
    """

    expected: str
    parse: Callable[[str], Any]
    parse_column: Callable[[Sequence[str]], tuple[Any, Sequence[int]]]
    schema: Mapping[str, Any] = field(default_factory=dict)
    missing: type[ValueError] | None = None
    missing_expected: str = ""
    value_rules: tuple[Rule, ...] = ()  # on what the text was parsed into


class EventTimes(NamedTuple):
    """Times in µs since the epoch, of one event or, as columns, of many."""

    device_us: Any
    server_us: Any
    latest_us: Any  # the latest that is tolerated: arrival plus the tolerated lead of a clock


@dataclass(frozen=True)
class TimeRule:
    """A condition on an event's times. `holds` works on one event's times and on columns of them alike."""

    code: Reason
    fields: tuple[str, ...]  # the fields that it is about; the first one is named when it is broken
    expected: Callable[[EventTimes], str]
    holds: Callable[[EventTimes], Any]


def elementwise(code: Reason, expected: str, holds: Callable[[Any], Any], **more: Any) -> Rule:
    """Return a rule whose check works on one value and on arrays alike."""
    return Rule(code, expected, lambda value: bool(holds(value)), lambda column: _where_not(holds(column)), **more)


def _where_not(fine: Any) -> Sequence[int]:
    return () if fine.all() else np.flatnonzero(~fine).tolist()


def at_most(characters: int) -> Rule:
    """Return the rule for a string of at most so many characters (code points, as in JSON Schema)."""

    def suspects(column: Sequence[str]) -> Sequence[int]:
        if max(map(len, column), default=0) <= characters:
            return ()
        return [at for at, text in enumerate(column) if len(text) > characters]

    return Rule(
        Reason.TOO_LONG,
        f"a string of at most {characters} characters",
        lambda text: len(text) <= characters,
        suspects,
        {"maxLength": characters},
        found=lambda text: f"{len(text)} characters",
    )


def _is_printable(text: str) -> bool:
    try:
        text.encode()  # refuses unpaired surrogates
    except UnicodeEncodeError:
        return False
    return "\0" not in text


PRINTABLE = Rule(
    Reason.BAD_CHARACTERS,
    "a string without NUL and unpaired surrogates",
    _is_printable,
    lambda column: () if _is_printable("".join(column)) else range(len(column)),
    {"pattern": r"^[^\u0000]*$"},
    schema_is_exact=False,  # a pattern on surrogates would refuse emoji where regular expressions see UTF-16
)


def _blank_types(column: Sequence[str]) -> Sequence[int]:
    blank = {text for text in set(column) if not event_types.canonical(text)}
    return [at for at, text in enumerate(column) if text in blank] if blank else ()


NOT_BLANK = Rule(
    Reason.EMPTY,
    "a string with visible characters",
    lambda text: bool(event_types.canonical(text)),
    _blank_types,
    {"minLength": 1},
    schema_is_exact=False,  # what counts as blank is Unicode's (White_Space and format characters)
)


def _outside_64_bits(column: Sequence[int]) -> Sequence[int]:
    if min(column, default=0) >= INT64_MIN and max(column, default=0) <= INT64_MAX:
        return ()
    return [at for at, number in enumerate(column) if not INT64_MIN <= number <= INT64_MAX]


INTEGER_OF_64_BITS = Rule(
    Reason.OUT_OF_RANGE,
    f"an integer from {INT64_MIN} to {INT64_MAX}",
    lambda number: INT64_MIN <= number <= INT64_MAX,
    _outside_64_bits,
    {"minimum": INT64_MIN, "maximum": INT64_MAX},
)


def is_imei(text: str) -> bool:
    """Return whether the text is 15 ASCII digits (3GPP TS 23.003, 6.2.1, the check digit aside)."""
    return len(text) == 15 and text.isascii() and text.isdigit()


def _not_imeis(column: Sequence[str]) -> Sequence[int]:
    suspects = list[int]()
    for begin in range(0, len(column), _PIECE_TEXTS):
        piece = column[begin : begin + _PIECE_TEXTS]
        joined = "".join(piece)
        if set(map(len, piece)) != {15} or not (joined.isascii() and joined.isdigit()):
            suspects += [at for at, text in enumerate(piece, begin) if not is_imei(text)]
    return suspects


IMEI_DIGITS = Rule(Reason.BAD_FORMAT, "a string of 15 digits", is_imei, _not_imeis, {"pattern": r"^[0-9]{15}$(?!\n)"})

_SINCE_1970 = elementwise(Reason.OUT_OF_RANGE, "a time since 1970", lambda us: us >= 0)

UTC_TIME = Format(
    f"a time in UTC, {times.FORMAT}",
    times.parse,
    time_columns.parse,
    {
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]00:?00)$(?!\n)",
    },
    times.NoSuchTimeError,
    "a time that exists: there is no such date or time of day",
    (_SINCE_1970,),
)

_ON_EARTH = elementwise(
    Reason.OUT_OF_RANGE,
    "latitude from -90 to 90, longitude from -180 to 180",
    lambda position: (abs(position[0]) <= 90) & (abs(position[1]) <= 180),
)


def _parse_positions(texts: Sequence[str]) -> tuple[Any, Sequence[int]]:
    latitudes, longitudes, unread = positions.parse_column(texts)
    return (latitudes, longitudes), unread


POSITION = Format(
    positions.FORMAT, positions.parse, _parse_positions, {"pattern": r"^[-0-9., ]+$(?!\n)"}, value_rules=(_ON_EARTH,)
)

#: "Device_Time ≤ Server_Time" (Validation Rules), and no clock too far ahead.
TIME_RULES = (
    TimeRule(
        Reason.IN_FUTURE,
        ("Device_Time",),
        lambda t: f"a time not after {times.rfc3339(max(0, int(t.latest_us)))}",
        lambda t: t.device_us <= t.latest_us,
    ),
    TimeRule(
        Reason.IN_FUTURE,
        ("Server_Time",),
        lambda t: f"a time not after {times.rfc3339(max(0, int(t.latest_us)))}",
        lambda t: t.server_us <= t.latest_us,
    ),
    TimeRule(
        Reason.DEVICE_AFTER_SERVER,
        ("Device_Time", "Server_Time"),
        lambda t: f"a time not after Server_Time, {times.rfc3339(int(t.server_us))}",
        lambda t: t.device_us <= t.server_us,
    ),
)
