"""How `eventpush tail` shows records."""

import csv
import io
import json
from types import SimpleNamespace

import msgspec

from eventpush import record_text
from eventpush.record_text import line

EVENT = {
    "device_time": "2024-06-28T17:52:13.000000Z",
    "event": "sos",
    "changes": 1,
    "imei": "350612075195931",
    "vehicle": "کرایه\u200cخودرو",
    "fleet": "क्\u200dष परिवहन",
    "driver": "A.\u00a0Rao",
    "latitude": 22.9,
    "longitude": 75.5,
    "geofence_name": None,
    "location": "Indore\x1b[2J\nIndia",
}


def test_names_of_any_script_are_printed_and_control_characters_are_not() -> None:
    """A line shows joiners and no-break spaces; an escape sequence or a line break from outside is harmless."""
    shown = line(msgspec.json.encode(EVENT))
    assert "کرایه\u200cخودرو क्\u200dष परिवहन A.\u00a0Rao" in shown
    assert shown.endswith("Indore�[2J�India")


RECORD = SimpleNamespace(value=msgspec.json.encode(EVENT), headers=[("ce_type", b"sos\n"), ("odd", b"\xff")])


def test_headers_are_shown_beside_the_value() -> None:
    """One below the other, harmless like the line; in JSON as an object, with the value unchanged."""
    shown = record_text.as_line_with_headers(RECORD)
    assert shown.splitlines()[1:] == ["    ce_type: sos�", "    odd: �"]
    found = json.loads(record_text.as_json_with_headers(RECORD))
    assert found == {"headers": {"ce_type": "sos\n", "odd": "\ufffd"}, "value": EVENT}
    assert record_text.as_json(RECORD) == msgspec.json.encode(EVENT).decode()


def test_a_value_that_is_no_json_is_a_text_beside_its_headers() -> None:
    """So that the output is JSON."""
    record = SimpleNamespace(value=b"no \xff", headers=[])
    assert json.loads(record_text.as_json_with_headers(record)) == {"headers": {}, "value": "no �"}


def test_csv_reads_back_with_its_columns() -> None:
    """Quotes, commas and line breaks survive; null and what is missing are empty, objects are JSON."""
    value = EVENT | {"driver": 'A "B", Jr.', "extra": {"battery": 3}, "warnings": ["clock"], "imei_valid": True}
    record = SimpleNamespace(value=msgspec.json.encode(value), headers=[("ce_id", b"1,2")])
    fields = ["driver", "location", "geofence_name", "extra", "warnings", "imei_valid", "changes", "sender"]
    lines = [record_text.csv_heading(fields, ["ce_id"]), record_text.as_csv(fields, ["ce_id"])(record)]
    (found,) = csv.DictReader(io.StringIO("\n".join(lines), newline=""))
    assert found == {
        "driver": 'A "B", Jr.', "location": "Indore\x1b[2J\nIndia", "geofence_name": "", "extra": '{"battery":3}',
        "warnings": '["clock"]', "imei_valid": "true", "changes": "1", "sender": "", "ce_id": "1,2",
    }  # fmt: skip
