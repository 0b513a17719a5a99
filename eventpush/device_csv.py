"""Read the device registry's CSV file: devices and bad lines out. Pure."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from eventpush.text import has_control_characters
from runtime.platform.errors import OperatorError
from schemas.device import NAME_MAX, Device
from schemas.rules import is_imei

COLUMNS = ("imei", *Device.__struct_fields__)
DELETE = "delete"  # the optional column: "yes" removes the device
_YES, _NO = frozenset({"1", "true", "yes"}), frozenset({"", "0", "false", "no"})


@dataclass(frozen=True)
class DeviceRow:
    """A line of the file; `entry` is None for a device to remove."""

    imei: str
    entry: Device | None


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be loaded, with the reason."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


def read(file: TextIO) -> Iterator[DeviceRow | BadLine]:
    """Yield the file's devices and bad lines in order; raise `OperatorError` for a wrong header."""
    rows = csv.reader(file, strict=True)
    header = _header(rows)
    first_line_of: dict[str, int] = {}
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
            yield _device(dict(zip(header, row, strict=False)), len(row), len(header), rows.line_num, first_line_of)


def _header(rows: Any) -> list[str]:
    expected = f"begin the file with the line {','.join(COLUMNS)} (optionally followed by {DELETE})"
    try:
        header = [name.strip().lower().removeprefix("\ufeff") for name in next(rows)]
    except StopIteration:
        raise OperatorError("the file is empty", expected) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise OperatorError(f"the file is not valid CSV in UTF-8 ({error})", expected) from None
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in (*COLUMNS, DELETE)]
    if missing:
        raise OperatorError(f"the header lacks {', '.join(missing)}", expected)
    if unknown:
        raise OperatorError(f"the header has unknown columns: {', '.join(unknown)}", expected)
    if len(set(header)) < len(header):
        raise OperatorError(f"the header repeats a column: {', '.join(header)}", expected)
    return header


def _device(
    fields: dict[str, str], width: int, wanted: int, line: int, first_line_of: dict[str, int]
) -> DeviceRow | BadLine:
    if width != wanted:
        return BadLine(line, f"{width} fields, the header has {wanted}")
    imei = fields["imei"].strip()
    if not is_imei(imei):
        return BadLine(line, f"imei {imei[:40]!r} is not 15 digits")
    if imei in first_line_of:
        return BadLine(line, f"imei {imei} was already in line {first_line_of[imei]}")
    first_line_of[imei] = line
    texts = {name: fields[name].strip() or None for name in COLUMNS[1:]}
    for name, text in texts.items():
        if text and (why := _why_invalid(text)):
            return BadLine(line, f"{name} {why}")
    deleted = fields.get(DELETE, "").strip().lower()
    if deleted not in _YES | _NO:
        return BadLine(line, f"{DELETE} is {deleted[:40]!r}, expected yes or empty")
    return DeviceRow(imei, None if deleted in _YES else Device(**texts))


def _why_invalid(name: str) -> str | None:
    if len(name) > NAME_MAX:
        return f"is longer than {NAME_MAX} characters"
    if has_control_characters(name):
        return f"{name[:40]!r} contains control characters"
    return None
