"""Read files of events, one at a time: NDJSON, a JSON array or CSV, each perhaps gzipped."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from eventpush.field_values import CastError, cast, value_text
from runtime.platform.errors import OperatorError
from schemas.event import SENT_FIELDS
from schemas.json_text import NotJsonError, value_end

_CHUNK_CHARACTERS = 1 << 16
_EVENT_MAX_CHARACTERS = 4 << 20  # more than any ingress accepts
_GZIP_MAGIC = b"\x1f\x8b"
_BETWEEN = re.compile(r"[ \t\r\n,]*")


class CsvMapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the columns of a CSV file become fields; a column that has a field's name needs no entry."""

    columns: tuple[tuple[str, str], ...] = ()  # field and column
    constants: tuple[tuple[str, str], ...] = ()  # field and value
    delimiter: str = ","


class Item(NamedTuple):
    """One event of a file: its number, from 1, and its bytes."""

    number: int
    event: bytes


def size_of(path: Path) -> int:
    """Return a file's size in bytes; raise `OperatorError` if it cannot be read."""
    try:
        with path.open("rb"):
            return path.stat().st_size
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror})", "name readable files") from None


class Source:
    """The events of one file; `position` is how many of the file's bytes were read."""

    def __init__(self, path: Path, mapping: CsvMapping) -> None:
        self._path = path
        self._mapping = mapping
        self._opened = ExitStack()
        self.size_bytes = size_of(path)
        self._file: BinaryIO = self._opened.enter_context(path.open("rb"))

    @property
    def position(self) -> int:
        """Bytes of the file that were read so far, of `size_bytes`."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __iter__(self) -> Iterator[Item]:
        """Yield the events in order; raise `OperatorError` where the file cannot be read any further."""
        number = 0
        try:
            for event in self._events():
                number += 1
                yield Item(number, event)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, NotJsonError) as error:
            raise OperatorError(
                f"{self._path}: event {number + 1} cannot be read ({error})",
                "what was read before it has been sent; correct the file, and run the command again with --restart",
            ) from None

    def _events(self) -> Iterator[bytes]:
        is_gzip = self._file.read(2) == _GZIP_MAGIC
        self._file.seek(0)
        plain = self._file
        if is_gzip:
            plain = self._opened.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=self._file)))
        suffixes = [suffix.lower() for suffix in self._path.suffixes]
        if ".csv" in suffixes[-2:]:
            return csv_events(self._text(plain, "utf-8-sig", newline=""), self._mapping)
        return array_events(self._text(plain, "utf-8")) if _first_character(plain) == b"[" else lines(plain)

    def _text(self, file: BinaryIO, encoding: str, newline: str | None = None) -> io.TextIOWrapper:
        return self._opened.enter_context(io.TextIOWrapper(file, encoding, newline=newline))


def _first_character(file: BinaryIO) -> bytes:
    """Return the first byte that is not white space, and go back to the beginning."""
    while (character := file.read(1)) in {b" ", b"\t", b"\r", b"\n"}:
        pass
    file.seek(0)
    return character


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of NDJSON that are not blank."""
    while line := file.readline(_EVENT_MAX_CHARACTERS):
        if stripped := line.strip():
            yield stripped


def array_events(file: io.TextIOBase) -> Iterator[bytes]:
    """Yield the elements of a JSON array as they are written, without reading all of the file at once."""
    buffer, at, ended = "", 0, False
    begun = False
    while True:
        at = _end_of_separators(buffer, at)
        if not begun and buffer[at : at + 1] == "[":
            begun, at = True, at + 1
            continue
        if buffer[at : at + 1] == "]":
            return
        end = _end_of_value(buffer, at, ended=ended)
        if end is not None and (ended or end < len(buffer)):
            yield buffer[at:end].encode()
            at = end
            continue
        if len(buffer) - at > _EVENT_MAX_CHARACTERS:
            raise NotJsonError(f"no event ends within {_EVENT_MAX_CHARACTERS} characters")
        more = file.read(_CHUNK_CHARACTERS)
        ended = not more
        buffer, at = buffer[at:] + more, 0


def _end_of_separators(buffer: str, at: int) -> int:
    match = _BETWEEN.match(buffer, at)
    return match.end() if match else at


def _end_of_value(buffer: str, at: int, *, ended: bool) -> int | None:
    """Return where the value ends; None if the rest of it has yet to be read."""
    try:
        return value_end(buffer, at)
    except NotJsonError:
        if ended:
            raise
        return None


def csv_events(file: io.TextIOBase, mapping: CsvMapping) -> Iterator[bytes]:
    """Yield each line of a CSV file as an event; raise `OperatorError` for a column that does not exist."""
    rows = csv.reader(file, delimiter=mapping.delimiter, strict=True)
    header = [name.strip() for name in next(rows, [])]
    columns = columns_of(header, mapping)
    for row in rows:
        if row:
            cells = dict(zip(header, row, strict=False))
            texts = {name: cells.get(column, "") for name, column in columns.items()} | dict(mapping.constants)
            yield event_of(texts)


def columns_of(header: list[str], mapping: CsvMapping) -> Mapping[str, str]:
    """Return each field's column. Fields of the contract are found by their names, in any case."""
    by_name = {column.lower(): column for column in header}
    columns = {name: by_name[name.lower()] for name in SENT_FIELDS if name.lower() in by_name}
    for name, column in mapping.columns:
        if column not in header:
            raise OperatorError(f"--column {name}={column}: the file has no such column", f"it has {', '.join(header)}")
        columns[name] = column
    return columns


def event_of(texts: Mapping[str, str]) -> bytes:
    """Return the JSON of an event whose values are given as text: empty ones are left out, times are converted."""
    members = (f"{json.dumps(name)}:{_value(name, text)}" for name, text in texts.items() if text != "")
    return ("{" + ",".join(members) + "}").encode()


def _value(name: str, text: str) -> str:
    written = value_text(name, text)
    try:
        return cast(name, written)
    except CastError:  # the rules say what is wrong with it
        return written
