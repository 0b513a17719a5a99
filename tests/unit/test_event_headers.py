"""Published events are CloudEvents: their headers, read by CloudEvents' own library and checked with the contract."""

import json
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from schemas import headers, times
from schemas.contract import headers_schema, schemas
from schemas.event_types import TYPES
from schemas.headers import event_headers
from schemas.topics import EVENTS, OTHER, of_type
from streams import event_headers as encoder
from tests.unit.published_records import read
from tests.unit.test_batch_processor import EXAMPLES, SAMPLE, process, record

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def published(value: bytes | dict[str, Any], **headers: str) -> tuple[dict[str, str], dict[str, Any], KafkaMessage]:
    """Headers and value of the record that is published for a payload, and the record for CloudEvents."""
    (found,) = read(process(record(0, value, **headers)).events)
    message = KafkaMessage(dict(found.headers), found.key, found.value or b"")
    return {name: text.decode() for name, text in found.headers}, json.loads(found.value or b""), message


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_published_event_is_a_cloud_event(path) -> None:
    """Its attributes are those that CloudEvents' library reads, and its data is the value, unchanged."""
    _, value, message = published(path.read_bytes())
    event = from_binary_event(message)
    assert (event.get_specversion(), event.get_source()) == ("1.0", "urn:eventpush")
    assert event.get_type() == of_type(value["event"])
    topic = of_type(value["event"])
    assert event.get_dataschema() == schemas()[topic if topic in schemas() else OTHER]["$id"]
    assert (event.get_id(), event.get_subject()) == (value["event_id"], value["imei"])
    time = event.get_time()
    assert time is not None
    assert int(time.timestamp() * 1_000_000) == times.parse(value["device_time"].replace("Z", "+0000"))
    assert event.get_data() == value


@given(
    event=st.sampled_from([*TYPES, "Harsh Braking", "überfall", "y" * 200]),
    imei=st.from_regex("[0-9]{15}", fullmatch=True),
    device_time=st.datetimes().map(lambda time: f"{time:%Y-%m-%dT%H:%M:%S.%f}+0000".rjust(31, "0")),
    traceparent=st.none() | st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=100),
)
def test_headers_keep_the_contract(event: str, imei: str, device_time: str, traceparent: str | None) -> None:
    """Whatever the type, the device and the time; the trace context is passed on if it was sent, and only then."""
    sent = SAMPLE | {"Event": event, "IMEI": imei, "Device_Time": device_time}
    result = process(record(0, sent, **({} if traceparent is None else {"traceparent": traceparent})))
    for kind, found in zip(result.types, read(result.events), strict=True):
        texts = {name: text.decode() for name, text in found.headers}
        for topic in (EVENTS, of_type(kind) if kind in TYPES else OTHER):
            Draft202012Validator(headers_schema(topic), format_checker=FormatChecker()).validate(texts)
        assert texts["ce_type"] == of_type(kind)
        assert texts.get("traceparent") == traceparent


def test_events_with_and_without_a_trace_context_in_one_batch() -> None:
    """Each record has its own headers."""
    second = SAMPLE | {"IMEI": "490154203237518", "Event": "sos"}
    plain, traced = read(process(record(0, SAMPLE), record(1, second, traceparent=TRACEPARENT)).events)
    assert "traceparent" not in dict(plain.headers)
    assert dict(traced.headers)["traceparent"].decode() == TRACEPARENT
    assert dict(traced.headers)["ce_subject"] == b"490154203237518"
    assert dict(plain.headers)["ce_type"] != dict(traced.headers)["ce_type"]


@pytest.mark.parametrize(
    "changed", [{"ce_type": "telematics.event.overspeed.v1"}, {"ce_id": "1"}, {"ce_subject": "12"}, {"ce_time": "now"}]
)
def test_headers_that_break_the_contract_are_found(changed: dict[str, str]) -> None:
    """The schema of a type's headers refuses another type, and texts of another form."""
    headers, _, _ = published(SAMPLE | {"Event": "sos"})
    validator = Draft202012Validator(headers_schema(of_type("sos")), format_checker=FormatChecker())
    validator.validate(headers)
    assert not validator.is_valid(headers | changed)


def test_every_event_says_when_its_topic_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a date is declared, the header `sunset` has it, beside all other headers, and so says the contract."""
    ends = "Sat, 01 May 2027 00:00:00 GMT"
    before, _, _ = published(SAMPLE, traceparent=TRACEPARENT)
    monkeypatch.setattr(encoder, "EVENT_HEADERS", event_headers(ends))
    monkeypatch.setattr(headers, "EVENT_HEADERS", event_headers(ends))
    encoder._of_type.cache_clear()
    try:
        after, _, _ = published(SAMPLE, traceparent=TRACEPARENT)
    finally:
        encoder._of_type.cache_clear()
    assert after == before | {"sunset": ends}
    schema = headers_schema(of_type("overspeed"))
    assert schema is not None
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(after)
    assert schema["properties"]["sunset"]["const"] == ends
