"""The lines of `eventpush tail`."""

import msgspec

from eventpush.tailing import line

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
