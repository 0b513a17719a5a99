"""The rules of an event."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import times
from schemas.rules import DESCRIPTION, Reason
from schemas.validation import ValidEvent, validate

EXAMPLES = sorted(Path("schemas/examples").glob("*.json"))
SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
RECEIVED_US = times.parse("2024-06-28T18:49:46.000000+0000")
SKEW_US = 300_000_000


def outcome(**changed: Any) -> ValidEvent | list[tuple[str, str]]:
    """The outcome of the sample with fields changed (`...` removes one): the event, or code and field of each."""
    payload = {name: value for name, value in {**SAMPLE, **changed}.items() if value is not ...}
    found = validate(json.dumps(payload).encode(), RECEIVED_US, SKEW_US)
    return found if isinstance(found, ValidEvent) else [(v.code, v.field) for v in found]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_keeps_the_rules(path: Path) -> None:
    """The contract's types, and an unknown one with unknown fields, are valid events."""
    assert isinstance(validate(path.read_bytes(), RECEIVED_US, SKEW_US), ValidEvent)


def test_the_sample_is_read_as_it_is_meant() -> None:
    """Each value of the API document's sample arrives parsed."""
    event = outcome()
    assert isinstance(event, ValidEvent)
    assert (event.event, event.changes, event.imei, event.geofence_name) == ("overspeed", 50, "350612075195931", None)
    assert (event.latitude, event.longitude) == (22.927968, 75.533275)
    assert (event.device_time, event.server_time) == ("2024-06-28T17:52:13.000000Z", "2024-06-28T18:49:45.000000Z")


def test_unknown_fields_are_kept_as_they_came() -> None:
    """Fields that the contract does not know stay, byte for byte."""
    raw = json.dumps(SAMPLE)[:-1] + ', "Speed": 81.50, "Card": {"id": [1,  2]}}'
    event = validate(raw.encode(), RECEIVED_US, SKEW_US)
    assert isinstance(event, ValidEvent)
    assert {name: bytes(value) for name, value in event.extra.items()} == {
        "Speed": b"81.50",
        "Card": b'{"id": [1,  2]}',
    }


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        ({"Event": ...}, [("missing", "Event")]),
        ({"Event": ""}, [("empty", "Event")]),
        ({"Event": "  "}, [("empty", "Event")]),
        ({"Event": 7}, [("wrong_type", "Event")]),
        ({"Event": "x" * 129}, [("too_long", "Event")]),
        ({"Event": "a\0b"}, [("bad_characters", "Event")]),
        ({"Changes": "50"}, [("wrong_type", "Changes")]),
        ({"Changes": 50.5}, [("wrong_type", "Changes")]),
        ({"Changes": True}, [("wrong_type", "Changes")]),
        ({"Changes": None}, [("wrong_type", "Changes")]),
        ({"Changes": 2**63}, [("out_of_range", "Changes")]),
        ({"Changes": 10**300}, [("out_of_range", "Changes")]),
        ({"IMEI": "35061207519593"}, [("bad_format", "IMEI")]),
        ({"IMEI": "35061207519593a"}, [("bad_format", "IMEI")]),
        ({"IMEI": "٣" * 15}, [("bad_format", "IMEI")]),
        ({"IMEI": 350612075195931}, [("wrong_type", "IMEI")]),
        ({"Coordinates": "22.9"}, [("bad_format", "Coordinates")]),
        ({"Coordinates": "nan,75"}, [("bad_format", "Coordinates")]),
        ({"Coordinates": "1e1,75"}, [("bad_format", "Coordinates")]),
        ({"Coordinates": "90.1,75"}, [("out_of_range", "Coordinates")]),
        ({"Coordinates": "22,-180.5"}, [("out_of_range", "Coordinates")]),
        ({"Location": None}, [("wrong_type", "Location")]),
        ({"Geofence_Name": 1}, [("wrong_type", "Geofence_Name")]),
        ({"Device_Time": "yesterday"}, [("bad_format", "Device_Time")]),
        ({"Device_Time": "1969-12-31T23:59:59.000000+0000"}, [("out_of_range", "Device_Time")]),
        ({"Device_Time": "2024-06-28T18:49:45.000001+0000"}, [("device_time_after_server_time", "Device_Time")]),
        ({"Server_Time": "2024-06-28T18:54:46.000001+0000"}, [("in_future", "Server_Time")]),
    ],
)
def test_a_broken_rule_is_named(changed: dict[str, Any], reasons: list[tuple[str, str]]) -> None:
    """Each rule has its code and names the field."""
    assert outcome(**changed) == reasons


def test_a_number_of_thousands_of_digits_is_out_of_range() -> None:
    """Python refuses to print such a number; the rule about it still has its say."""
    raw = json.dumps(SAMPLE).replace("50", "7" * 10_000, 1)
    found = validate(raw.encode(), RECEIVED_US, SKEW_US)
    assert isinstance(found, list)
    assert [v.code for v in found] in (["out_of_range"], ["not_json"])


def test_all_broken_rules_are_reported_at_once() -> None:
    """An event that breaks many rules is told all of them."""
    found = outcome(Event="", Changes="x", IMEI="1", Coordinates="95,75", Device_Time="?", Location=...)
    assert set(found) == {
        ("empty", "Event"),
        ("wrong_type", "Changes"),
        ("bad_format", "IMEI"),
        ("out_of_range", "Coordinates"),
        ("bad_format", "Device_Time"),
        ("missing", "Location"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"NaN", "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b'{"a": "\\ud800"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"Changes": 1e999}', "not_json"),
        (b"[]", "not_object"),
        (b'"text"', "not_object"),
    ],
)
def test_what_is_no_json_object_says_so(raw: bytes, code: str) -> None:
    """Bytes that are no JSON object have exactly one reason."""
    found = validate(raw, RECEIVED_US, SKEW_US)
    assert isinstance(found, list)
    assert [v.code for v in found] == [code]


@given(st.binary(max_size=400))
def test_any_bytes_give_an_outcome(raw: bytes) -> None:
    """No bytes make the rules raise."""
    assert validate(raw, RECEIVED_US, SKEW_US)


def test_what_would_not_fit_into_a_record_is_too_large() -> None:
    """A payload that got into the raw topic past the ingress and is too large has that reason alone."""
    found = validate(json.dumps({**SAMPLE, "Speed": "x" * 3 * 2**20}).encode(), RECEIVED_US, SKEW_US)
    assert isinstance(found, list)
    assert [v.code for v in found] == ["too_large"]


def test_every_reason_is_described() -> None:
    """The registry of reasons documents each of them."""
    assert set(DESCRIPTION) == set(Reason)
