"""What a subscriber reads from a real Kafka: headers and values, with clients that share no code with ours."""

import json
import shutil

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from schemas.contract import headers_schema, schemas
from schemas.event_types import TYPES
from schemas.sent_schema import example
from schemas.topics import EVENTS, of_type
from tests.integration.subscriber_fixture import TRACEPARENT, Publisher, lines_of, publisher

__all__ = ["publisher"]


def test_records_of_every_type_keep_the_contract(publisher: Publisher) -> None:
    """Headers and value are valid by the contract of the type's topic and of that of all events."""
    for event in TYPES:
        publisher.post(example(event), traceparent=TRACEPARENT)
    for event in TYPES:
        (record,) = publisher.wait_for_records(of_type(event))
        value, headers = json.loads(record.value()), {name: text.decode() for name, text in record.headers()}
        for topic in (EVENTS, of_type(event)):
            Draft202012Validator(schemas()[topic], format_checker=FormatChecker()).validate(value)
            Draft202012Validator(headers_schema(topic), format_checker=FormatChecker()).validate(headers)
        assert (headers["ce_id"], headers["ce_time"]) == (value["event_id"], value["device_time"])
        assert headers["ce_subject"] == record.key().decode() == value["imei"]
        assert headers["traceparent"] == TRACEPARENT


def test_kcat_shows_the_headers(publisher: Publisher) -> None:
    """And the value, from topics with the default compression."""
    if shutil.which("kcat") is None:
        pytest.skip("needs kcat: apt-get install kcat")
    publisher.post(example("sos"), traceparent=TRACEPARENT)
    topic = of_type("sos")
    publisher.wait_for_records(topic)
    kcat = ["kcat", "-C", "-q", "-b", publisher.bootstrap, "-t", topic, "-e", "-X", "isolation.level=read_committed"]
    (line,) = lines_of([*kcat, "-f", "%h %s\n"])
    headers, value = line.split(" ", 1)
    assert "ce_type=telematics.event.sos.v1" in headers.split(",")
    assert f"traceparent={TRACEPARENT}" in headers.split(",")
    assert f"ce_id={json.loads(value)['event_id']}" in headers.split(",")


def test_tail_chooses_records_and_shows_their_headers(publisher: Publisher) -> None:
    """By age and by an expression; as JSON with headers and as CSV; a wrong expression is refused before anything."""
    for event in ("sos", "overspeed"):
        publisher.post(example(event), traceparent=TRACEPARENT)
    where = 'severity == "critical" and event == "sos"'
    chosen = ("tail", "--since", "10m", "--where", where, "--max", "1", "--headers")
    shown = publisher.run(*chosen, "--json")
    found = json.loads(shown.stdout)
    assert (found["value"]["event"], found["headers"]["ce_type"]) == ("sos", of_type("sos"))
    heading, row = publisher.run(*chosen, "--csv").stdout.splitlines()
    assert (heading.split(",")[0], heading.split(",")[-1]) == ("event_id", "traceparent")
    assert row.split(",")[-1] == TRACEPARENT
    refused = publisher.run("tail", "--where", "severty == 1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no field severty" in refused.stderr
