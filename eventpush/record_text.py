"""A record as text: a readable line, JSON, or CSV. Pure."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from eventpush.text import printable
from schemas import json_text

_decode_names: Callable[[bytes], dict[str, msgspec.Raw]] = json_text.decoder_of(dict[str, msgspec.Raw])


class Record(Protocol):
    """What is shown of a record."""

    value: bytes
    headers: Sequence[tuple[str, bytes]]


Renderer = Callable[[Record], str]


def fields_of_value(value: bytes) -> Mapping[str, Any]:
    """Return the fields of a value; none of one that is no JSON object."""
    try:
        return json_text.fields_of(value)
    except json_text.NotJsonError:
        return {}


def line(value: bytes) -> str:
    """Return an event or a dead letter as one readable line; anything else unchanged but for control characters."""
    try:
        fields = json_text.fields_of(value)
        return _dead_letter(fields) if "dead_letter_id" in fields else _event(fields)
    except (KeyError, TypeError, ValueError):
        return printable(value.decode("utf-8", "replace"))


def as_line(record: Record) -> str:
    """Return the record's value as one readable line."""
    return line(record.value)


def as_line_with_headers(record: Record) -> str:
    """Return the line, and below it each header."""
    headers = (f"    {printable(name)}: {printable(text)}" for name, text in _headers(record).items())
    return "\n".join((as_line(record), *headers))


def as_json(record: Record) -> str:
    """Return the value unchanged."""
    return record.value.decode("utf-8", "replace")


def as_json_with_headers(record: Record) -> str:
    """Return one JSON object with the headers and the value."""
    value = msgspec.Raw(record.value) if fields_of_value(record.value) else as_json(record)
    return msgspec.json.encode({"headers": _headers(record), "value": value}).decode()


def csv_heading(fields: Sequence[str], headers: Sequence[str]) -> str:
    """Return the line that names the columns (RFC 4180)."""
    return _csv_line([*fields, *headers])


def as_csv(fields: Sequence[str], headers: Sequence[str]) -> Renderer:
    """Return what shows these fields and headers as a line of CSV: objects and arrays as JSON, null as nothing."""

    def rendered(record: Record) -> str:
        value, texts = _fields_as_sent(record.value), _headers(record)
        return _csv_line([*map(_cell, map(value.get, fields)), *(texts.get(name, "") for name in headers)])

    return rendered


def _headers(record: Record) -> dict[str, str]:
    return {name: text.decode("utf-8", "replace") for name, text in record.headers}


def _fields_as_sent(value: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return _decode_names(value)
    except msgspec.MsgspecError:
        return {}


def _cell(value: msgspec.Raw | None) -> str:
    text = "null" if value is None else str(value, "utf-8")
    return json_text.string_of(text) if text.startswith('"') else "" if text == "null" else text


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().removesuffix("\r\n")


def _event(event: Mapping[str, Any]) -> str:
    owner = " ".join(filter(None, (event["vehicle"], event["fleet"], event["driver"]))) or "-"
    position = f"{event['latitude']:.5f},{event['longitude']:.5f}"
    place = " · ".join(filter(None, (event["geofence_name"], event["location"])))
    parts = (
        event["device_time"],
        f"{event['event']:<14}",
        f"{event['changes']:>6}",
        event["imei"],
        owner,
        position,
        place,
    )
    return printable("  ".join(parts))


def _dead_letter(letter: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{reason['field']} {reason['code']}".strip() for reason in letter["reasons"])
    parts = (letter["received_at"], letter["event"] or "-", letter["imei"] or "-", reasons, letter["payload"])
    return printable("  ".join(parts))
