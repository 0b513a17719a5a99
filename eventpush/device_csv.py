"""Read the device registry's CSV file: rows of devices and bad lines out. Pure."""

import csv
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

from eventpush.device_history import Row
from eventpush.moments import microseconds
from eventpush.text import has_control_characters
from runtime.platform.errors import OperatorError
from schemas import times
from schemas.device import INTERVALS_MAX, NAME_MAX, Device
from schemas.rules import is_imei

NAMES = ("vehicle", "fleet", "driver")
COLUMNS = ("imei", *NAMES)
VALID_FROM, VALID_TO = "valid_from", "valid_to"  # optional columns: the period that the row is about
DELETE = "delete"  # the optional column: "yes" removes the device, "forget" with its history
OPTIONAL = (VALID_FROM, VALID_TO, DELETE)
_YES, _NO, _FORGET = frozenset({"1", "true", "yes"}), frozenset({"", "0", "false", "no"}), "forget"
#: What the columns of ClickHouse can hold.
_EARLIEST, _LATEST = "1900-01-01T00:00:00.000000Z", "2299-12-31T23:59:59.999999Z"


@dataclass(frozen=True)
class DeviceRow:
    """A line of the file; `row` is None for a device to remove with its history."""

    imei: str
    row: Row | None


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be loaded, with the reason."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


class _Period(NamedTuple):
    """A period that a line names; `end` is empty if the line does not name it."""

    begin: str
    line: int
    end: str


class _BadValueError(ValueError):
    """A value that cannot be loaded; the message says why."""


def read(file: TextIO) -> Iterator[DeviceRow | BadLine]:
    """Yield the file's rows and bad lines in order; raise `OperatorError` for a wrong header."""
    rows = csv.reader(file, strict=True)
    header = _header(rows)
    periods_of: dict[str, list[_Period]] = defaultdict(list)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            yield BadLine(rows.line_num, f"not valid CSV in UTF-8 ({error})")
            if isinstance(error, UnicodeDecodeError):
                return  # the decoder cannot resume
            continue
        if row:
            try:
                if len(row) != len(header):
                    raise _BadValueError(f"{len(row)} fields, the header has {len(header)}")
                yield _device_row(dict(zip(header, row, strict=True)), rows.line_num, periods_of)
            except _BadValueError as error:
                yield BadLine(rows.line_num, str(error))


def _header(rows: Any) -> list[str]:
    expected = f"begin the file with the line {','.join(COLUMNS)} (optionally followed by {', '.join(OPTIONAL)})"
    try:
        header = [name.strip().lower().removeprefix("\ufeff") for name in next(rows)]
    except StopIteration:
        raise OperatorError("the file is empty", expected) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise OperatorError(f"the file is not valid CSV in UTF-8 ({error})", expected) from None
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in (*COLUMNS, *OPTIONAL)]
    if missing:
        raise OperatorError(f"the header lacks {', '.join(missing)}", expected)
    if unknown:
        raise OperatorError(f"the header has unknown columns: {', '.join(unknown)}", expected)
    if len(set(header)) < len(header):
        raise OperatorError(f"the header repeats a column: {', '.join(header)}", expected)
    return header


def _device_row(fields: Mapping[str, str], line: int, periods_of: dict[str, list[_Period]]) -> DeviceRow:
    """Return the line's row and remember its period; raise `_BadValueError`."""
    imei = fields["imei"].strip()
    if not is_imei(imei):
        raise _BadValueError(f"imei {imei[:40]!r} is not 15 digits")
    begin, end = _time(fields, VALID_FROM), _time(fields, VALID_TO)
    _check_period(begin, end)
    _add_period(periods_of[imei], _Period(begin or "", line, end or ""), imei)
    vehicle, fleet, driver = (_name(fields, column) for column in NAMES)
    deleted = fields.get(DELETE, "").strip().lower()
    if deleted not in _YES | _NO | {_FORGET}:
        raise _BadValueError(f"{DELETE} is {deleted[:40]!r}, expected yes, {_FORGET} or empty")
    if deleted == _FORGET:
        if begin or len(periods_of[imei]) > 1:
            raise _BadValueError(
                f"{DELETE} {_FORGET} removes all of imei {imei}: it takes no {VALID_FROM}, no other line"
            )
        return DeviceRow(imei, None)
    return DeviceRow(imei, Row(None if deleted in _YES else Device(vehicle, fleet, driver), begin, end))


def _check_period(begin: str | None, end: str | None) -> None:
    if end and not begin:
        raise _BadValueError(f"{VALID_TO} {end} needs a {VALID_FROM}")
    if begin and end and end <= begin:
        raise _BadValueError(f"{VALID_TO} {end} is not after {VALID_FROM} {begin}")


def _add_period(periods: list[_Period], period: _Period, imei: str) -> None:
    """Insert a device's period in order; raise `_BadValueError` if it overlaps one of another line."""
    at = bisect(periods, period)
    for other in (*periods[at - 1 : at], *periods[at : at + 1]):
        if not period.begin and not other.begin:
            raise _BadValueError(
                f"imei {imei} was already in line {other.line}: only lines with {VALID_FROM} may repeat it"
            )
        first, second = sorted((other, period))
        if first.begin == second.begin or (first.begin and second.begin < first.end):
            raise _BadValueError(f"{_text(period)} of imei {imei} overlaps line {other.line}, {_text(other)}")
    if len(periods) == INTERVALS_MAX:
        raise _BadValueError(f"imei {imei} has more than {INTERVALS_MAX} lines")
    periods.insert(at, period)


def _text(period: _Period) -> str:
    return f"{VALID_FROM} {period.begin}" + (f" {VALID_TO} {period.end}" if period.end else "")


def _name(fields: Mapping[str, str], column: str) -> str | None:
    name = fields[column].strip()
    if len(name) > NAME_MAX:
        raise _BadValueError(f"{column} is longer than {NAME_MAX} characters")
    if has_control_characters(name):
        raise _BadValueError(f"{column} {name[:40]!r} contains control characters")
    return name or None


def _time(fields: Mapping[str, str], column: str) -> str | None:
    text = fields.get(column, "").strip()
    if not text:
        return None
    try:
        time = times.rfc3339(microseconds(text))
    except ValueError:
        time = ""
    if not _EARLIEST <= time <= _LATEST:
        raise _BadValueError(
            f"{column} {text[:40]!r} is not a time from 1900 to 2299 like 2026-06-01 or 2026-06-01T08:00:00+05:30"
        )
    return time
