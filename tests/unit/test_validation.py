"""The rules of an event."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import times
from schemas.rules import DESCRIPTION, Reason
from schemas.validation import ClockLimits, ValidEvent, validate

EXAMPLES = sorted(Path("schemas/examples").glob("*.json"))
SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
RECEIVED_US = times.parse("2024-06-28T18:49:46.000000+0000")
CLOCK = ClockLimits.of_seconds(300, 86_400)


def outcome(**changed: Any) -> ValidEvent | list[tuple[str, str]]:
    """The outcome of the sample with fields changed (`...` removes one): the event, or code and field of each."""
    payload = {name: value for name, value in {**SAMPLE, **changed}.items() if value is not ...}
    found = validate(json.dumps(payload).encode(), RECEIVED_US, CLOCK)
    return found if isinstance(found, ValidEvent) else [(v.code, v.field) for v in found]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_keeps_the_rules(path: Path) -> None:
    """The contract's types, and an unknown one with unknown fields, are valid events."""
    assert isinstance(validate(path.read_bytes(), RECEIVED_US, CLOCK), ValidEvent)


def test_the_sample_is_read_as_it_is_meant() -> None:
    """Each value of the API document's sample arrives parsed."""
    event = outcome()
    assert isinstance(event, ValidEvent)
    assert (event.event, event.changes, event.imei, event.geofence_name) == ("overspeed", 50, "350612075195931", None)
    assert (event.latitude, event.longitude) == (22.927968, 75.533275)
    assert times.rfc3339(event.device_us) == "2024-06-28T17:52:13.000000Z"
    assert times.rfc3339(event.server_us) == "2024-06-28T18:49:45.000000Z"


def raw_with(members: str) -> bytes:
    """The sample with these members, as they are, at its end."""
    return (json.dumps(SAMPLE)[:-1] + ", " + members + "}").encode()


@pytest.mark.parametrize(
    ("members", "extra"),
    [
        ('"Speed": 81.50, "Card": {"id": [1,  2]}', '{"Speed":81.50,"Card":{"id":[1,2]}}'),
        ('"odometer": 1e400, "n": -0.0, "big": 1234567890123456789.10',
         '{"odometer":1e400,"n":-0.0,"big":1234567890123456789.10}'),
        (r'"Note": "Depot \ud83d", "\udc00": 1', r'{"Note":"Depot \ud83d","\udc00":1}'),
        ('"a  b": "c  d\\" ,",\n"e":\t[ { } ]', '{"a  b":"c  d\\" ,","e":[{}]}'),
        ('"Sp\\u0065ed": null, "x": 1, "x": 2', '{"Sp\\u0065ed":null,"x":2}'),
    ],
)  # fmt: skip
def test_unknown_fields_are_kept_as_they_were_sent(members: str, extra: str) -> None:
    """Numbers of any size, unpaired surrogates, escapes: token for token, on one line."""
    event = validate(raw_with(members), RECEIVED_US, CLOCK)
    assert isinstance(event, ValidEvent)
    assert event.extra.decode() == extra


@pytest.mark.parametrize("name", ["Location", "Geofence_Name", "Event"])
def test_an_unpaired_surrogate_in_a_known_field_is_named_with_all_other_broken_rules(name: str) -> None:
    """It is JSON by RFC 8259, so it hides no other rule, and the field is named."""
    raw = json.dumps({**SAMPLE, name: "Depot \ud83d", "IMEI": "12"}).encode()
    found = validate(raw, RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert {(v.code, v.field) for v in found} == {("bad_characters", name), ("bad_format", "IMEI")}


@pytest.mark.parametrize(
    ("written", "changes"),
    [("50.0", 50), ("5e1", 50), ("-0.0", 0), ("500e-1", 50), ("9223372036854775807.0", 2**63 - 1),
     ("-92233720368547758.08e2", -(2**63))],
)  # fmt: skip
def test_a_number_with_an_integral_value_is_an_integer(written: str, changes: int) -> None:
    """As in JSON Schema; exact also where a double is not."""
    event = validate(json.dumps(SAMPLE).replace('"Changes": 50', f'"Changes": {written}').encode(), RECEIVED_US, CLOCK)
    assert isinstance(event, ValidEvent)
    assert event.changes == changes


@pytest.mark.parametrize(
    ("written", "code", "expected"),
    [
        ("12.5", "wrong_type", "an integer from"),
        ("1e400", "out_of_range", "from -9223372036854775808 to 9223372036854775807"),
        ("9223372036854775808", "out_of_range", "from -9223372036854775808 to 9223372036854775807"),
        ("1e-400", "wrong_type", "an integer from"),
    ],
)
def test_what_is_no_integer_of_64_bits_is_shown_as_it_was_sent(written: str, code: str, expected: str) -> None:
    """The reason quotes the number as it was written, and the range."""
    found = validate(json.dumps(SAMPLE).replace('"Changes": 50', f'"Changes": {written}').encode(), RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert [(v.code, v.field, v.found) for v in found] == [(code, "Changes", written)]
    assert expected in found[0].expected


@pytest.mark.parametrize(
    ("text", "canonical_text", "cut"),
    [
        ("2024-06-28T17:52:13Z", "2024-06-28T17:52:13.000000Z", False),
        ("2024-06-28T17:52:13.5+00:00", "2024-06-28T17:52:13.500000Z", False),
        ("2024-06-28T17:52:13.123456789-00:00", "2024-06-28T17:52:13.123456Z", True),
        ("2024-06-28T17:52:13.123456000+0000", "2024-06-28T17:52:13.123456Z", False),
    ],
)
def test_spellings_of_one_instant_are_accepted(text: str, canonical_text: str, cut: bool) -> None:
    """None to nine fraction digits, Z and every zero offset; what is beyond microseconds is cut and said."""
    event = outcome(Device_Time=text)
    assert isinstance(event, ValidEvent)
    assert (times.rfc3339(event.device_us), event.time_cut) == (canonical_text, cut)


def test_an_escaped_time_that_is_cut_says_so() -> None:
    """What a text stands for decides, not how JSON writes it."""
    escaped = json.dumps(SAMPLE).replace(SAMPLE["Device_Time"], "2024-06-28T17:52:13.123456789\\u005a")
    event = validate(escaped.encode(), RECEIVED_US, CLOCK)
    assert isinstance(event, ValidEvent)
    assert (times.rfc3339(event.device_us), event.time_cut) == ("2024-06-28T17:52:13.123456Z", True)


@pytest.mark.parametrize("text", ["2024-02-30T00:00:00.000000+0000", "2024-06-28T24:00:00Z", "2024-06-28T17:52:60Z"])
def test_a_time_that_does_not_exist_says_so(text: str) -> None:
    """It is well written: the format is not what is wrong."""
    found = validate(json.dumps({**SAMPLE, "Device_Time": text}).encode(), RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert [(v.code, v.field) for v in found] == [("out_of_range", "Device_Time")]
    assert "no such date or time" in found[0].expected


@pytest.mark.parametrize("changed", [{"Location": None}, {"Location": ...}])
def test_a_missing_location_keeps_no_event_from_its_subscribers(changed: dict[str, Any]) -> None:
    """A geocoder that is away must not hold back an SOS."""
    event = outcome(**changed)
    assert isinstance(event, ValidEvent)
    assert event.location is None


@pytest.mark.parametrize("name", [None, ..., "", "  ", "\u00a0"])
def test_all_ways_to_have_no_geofence_are_one(name: Any) -> None:
    """Null, absent, empty and blank."""
    event = outcome(Geofence_Name=name)
    assert isinstance(event, ValidEvent)
    assert event.geofence_name is None


def test_over_long_coordinates_name_the_bound() -> None:
    """Also those that are well written."""
    found = validate(json.dumps({**SAMPLE, "Coordinates": "22." + "0" * 70 + ",75"}).encode(), RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert [(v.code, v.expected) for v in found] == [("too_long", "a string of at most 64 characters")]


def test_a_name_that_is_there_twice_is_noted_and_its_last_value_counts() -> None:
    """In RFC 8259's words their names should be unique; senders exist that repeat one."""
    event = validate(raw_with('"Changes": 51'), RECEIVED_US, CLOCK)
    assert isinstance(event, ValidEvent)
    assert (event.changes, event.duplicate_keys) == (51, True)


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
        ({"Location": 1}, [("wrong_type", "Location")]),
        ({"Geofence_Name": 1}, [("wrong_type", "Geofence_Name")]),
        ({"Device_Time": "yesterday"}, [("bad_format", "Device_Time")]),
        ({"Device_Time": "1969-12-31T23:59:59.000000+0000"}, [("out_of_range", "Device_Time")]),
        ({"Device_Time": "2024-06-28T18:49:45.000001+0000"}, [("device_time_after_server_time", "Device_Time")]),
        ({"Server_Time": "2024-06-29T18:49:46.000001+0000"}, [("in_future", "Server_Time")]),
        ({"Event": "\u200b "}, [("empty", "Event")]),
    ],
)
def test_a_broken_rule_is_named(changed: dict[str, Any], reasons: list[tuple[str, str]]) -> None:
    """Each rule has its code and names the field."""
    assert outcome(**changed) == reasons


def test_a_number_of_thousands_of_digits_is_out_of_range() -> None:
    """Python refuses to print such a number; the rule about it still has its say."""
    raw = json.dumps(SAMPLE).replace("50", "7" * 10_000, 1)
    found = validate(raw.encode(), RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert [v.code for v in found] == ["out_of_range"]


def test_all_broken_rules_are_reported_at_once() -> None:
    """An event that breaks many rules is answered with all of them."""
    found = outcome(Event="", Changes="x", IMEI="1", Coordinates="95,75", Device_Time="?", Location=7)
    assert isinstance(found, list)
    assert set(found) == {
        ("empty", "Event"),
        ("wrong_type", "Changes"),
        ("bad_format", "IMEI"),
        ("out_of_range", "Coordinates"),
        ("bad_format", "Device_Time"),
        ("wrong_type", "Location"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"NaN", "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b'{"a": "\\u12"}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a":1,}', "not_json"),
        (b'{"a":NaN}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "not_object"),
        (b'"text"', "not_object"),
    ],
)
def test_what_is_no_json_object_says_so(raw: bytes, code: str) -> None:
    """Bytes that are no JSON object have exactly one reason."""
    found = validate(raw, RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert [v.code for v in found] == [code]


@given(st.binary(max_size=400))
def test_any_bytes_give_an_outcome(raw: bytes) -> None:
    """No bytes make the rules raise."""
    assert validate(raw, RECEIVED_US, CLOCK)


def test_what_would_not_fit_into_a_record_is_too_large() -> None:
    """A payload that got into the raw topic past the ingress and is too large has that reason alone."""
    found = validate(json.dumps({**SAMPLE, "Speed": "x" * 3 * 2**20}).encode(), RECEIVED_US, CLOCK)
    assert isinstance(found, list)
    assert [v.code for v in found] == ["too_large"]


def test_every_reason_is_described() -> None:
    """The registry of reasons documents each of them."""
    assert set(DESCRIPTION) == set(Reason)
