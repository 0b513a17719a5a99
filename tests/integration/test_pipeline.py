"""The whole pipeline, as real processes: from a request to a row in ClickHouse and a message on a topic."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from schemas.contract import schemas
from schemas.event_types import TYPES
from schemas.topics import DEAD_LETTER, EVENTS, of_type
from tests.integration.pipeline_support import Pipeline, own_pipeline, until

SAMPLE: dict[str, Any] = {
    "Event": "overspeed",
    "Changes": 50,
    "Device_Time": "2024-06-28T17:52:13.000000+0000",
    "IMEI": "350612075195931",
    "Server_Time": "2024-06-28T18:49:45.000000+0000",
    "Coordinates": "22.927968,75.533275",
    "Location": "Indore - Depalpur - Ingoriya Road, Kharsora, Birgoda, Depalpur Tahsil, Indore District, "
    "Madhya Pradesh, 453220, India",
    "Geofence_Name": None,
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with a Kafka and a ClickHouse of its own, so that the tests can count."""
    with own_pipeline(tmp_path_factory.mktemp("pipeline")) as running:
        yield running


def at(second: int, **fields: Any) -> dict[str, Any]:
    """The sample at another second, so that it is another event."""
    return SAMPLE | {"Device_Time": f"2024-06-28T17:00:{second:02d}.000000+0000"} | fields


def validator(topic: str) -> Draft202012Validator:
    """The contract of a topic."""
    return Draft202012Validator(schemas()[topic], format_checker=FormatChecker())


def settled(pipeline: Pipeline) -> dict[str, Any]:
    """The account, as soon as nothing is in flight; it adds up at every moment."""

    def account() -> dict[str, Any] | None:
        result = pipeline.run("account", "--json")
        found = json.loads(result.stdout)
        assert (result.returncode, found["discrepancies"]) == (0, []), result
        return found if not any(found["in_flight"].values()) else None

    return until(account, "nothing in flight")


def test_the_sample_becomes_a_row_with_every_column_right(pipeline: Pipeline) -> None:
    """The contract's sample event, posted, is in ClickHouse with what was sent and what was added."""
    receipt_id = pipeline.post(SAMPLE)
    row = pipeline.row(f"receipt_id = '{receipt_id}'")
    raw = row.pop("raw")
    assert raw["topic"] == "telematics.raw.v1"
    assert row.pop("received_at") <= row.pop("inserted_at")
    assert len(row.pop("event_id")) == 36
    assert row.pop("platform_delay_ms") > 0
    assert row == {
        "event": "overspeed",
        "changes": 50,
        "imei": "350612075195931",
        "device_time": "2024-06-28 17:52:13.000000",
        "server_time": "2024-06-28 18:49:45.000000",
        "latitude": 22.927968,
        "longitude": 75.533275,
        "location": SAMPLE["Location"],
        "event_as_sent": None,
        "warnings": [],
        "sender": None,
        "geofence_name": None,
        "category": "driving",
        "severity": "warning",
        "h3_r7": row["h3_r7"],
        "h3_r9": row["h3_r9"],
        "time_zone": "Asia/Kolkata",
        "device_time_local": "2024-06-28 23:22:13.000000",
        "imei_valid": True,
        "tac": "35061207",
        "device_delay_ms": 3_452_000,
        "vehicle": None,
        "fleet": None,
        "driver": None,
        "extra": "{}",
        "receipt_id": receipt_id,
    }
    cells = "geoToH3(22.927968, 75.533275, 7) AS h3_r7, geoToH3(22.927968, 75.533275, 9) AS h3_r9"
    assert pipeline.select(f"SELECT {cells}") == [{"h3_r7": row["h3_r7"], "h3_r9": row["h3_r9"]}]


def test_the_sample_is_a_message_on_both_topics(pipeline: Pipeline) -> None:
    """The same JSON on the topic of all events and on the type's, with the names of the columns."""
    pipeline.post(SAMPLE)
    (message,) = pipeline.messages(count=1)
    assert pipeline.messages("overspeed", count=1) == [message]
    row = pipeline.row(f"event_id = '{message['event_id']}'")
    assert set(message) == set(row) - {"inserted_at"}
    assert message["device_time"] == "2024-06-28T17:52:13.000000Z"
    assert message["raw"] == row["raw"]


def test_every_type_on_its_topic_keeps_the_contract(pipeline: Pipeline) -> None:
    """Events of all known types, as a subscriber reads them, are valid by the schemas of their topics."""
    for event in TYPES:
        pipeline.post(at(5, Event=event))
    for event in TYPES:
        for message in pipeline.messages(event, count=1):
            for topic in (EVENTS, of_type(event)):
                validator(topic).validate(message)


def test_a_duplicate_is_dropped(pipeline: Pipeline) -> None:
    """A repeat, stamped again by the platform and with its time written differently, is no second row."""
    pipeline.post(SAMPLE)
    before = settled(pipeline)["total"]["duplicate"]
    pipeline.post(SAMPLE)
    pipeline.post(SAMPLE | {"Server_Time": "2024-06-28T19:00:00.000000+0000", "Location": "elsewhere"})
    pipeline.post(SAMPLE | {"Device_Time": "2024-06-28T17:52:13Z"})
    assert settled(pipeline)["total"]["duplicate"] == before + 3
    rows = pipeline.select("SELECT location FROM telematics.events WHERE device_time = '2024-06-28 17:52:13'")
    assert rows == [{"location": SAMPLE["Location"]}]


def test_an_invalid_twin_is_a_dead_letter_with_every_reason(pipeline: Pipeline) -> None:
    """All broken rules at once, each with field, finding and expectation, beside the bytes as they came."""
    twin = SAMPLE | {
        "Event": " ",
        "Changes": "fifty",
        "IMEI": "35061207519593",
        "Coordinates": "north",
        "Server_Time": "2024-06-28T17:52:12.000000+0000",
    }
    receipt_id = pipeline.post(twin)
    letter = pipeline.row(f"receipt_id = '{receipt_id}'", "telematics.dead_letters")
    assert {(reason["field"], reason["code"]) for reason in letter["reasons"]} == {
        ("Event", "empty"),
        ("Changes", "wrong_type"),
        ("IMEI", "bad_format"),
        ("Coordinates", "bad_format"),
        ("Device_Time", "device_time_after_server_time"),
    }
    assert all(reason["found"] and reason["expected"] for reason in letter["reasons"])
    assert json.loads(letter["payload"]) == twin
    assert (letter["stage"], letter["payload_encoding"], letter["imei"]) == ("streams", "utf-8", "35061207519593")


def test_a_conflict_shows_both_sides(pipeline: Pipeline) -> None:
    """The same identity with other content is never dropped silently: a dead letter names the accepted event."""
    pipeline.post(at(1))
    receipt_id = pipeline.post(at(1, Changes=51))
    letter = pipeline.row(f"receipt_id = '{receipt_id}'", "telematics.dead_letters")
    assert [reason["code"] for reason in letter["reasons"]] == ["conflict"]
    row = pipeline.row(f"event_id = '{letter['conflict_with_event_id']}'")
    assert row["changes"] == 50
    shown = pipeline.row(f"event_id = '{row['event_id']}'", "telematics.conflicts")
    assert (shown["accepted_changes"], json.loads(shown["refused_payload"])["Changes"]) == (50, 51)


def test_unknown_types_and_fields_are_kept(pipeline: Pipeline) -> None:
    """A type that the contract does not know has a row and a topic, an unknown field stands in `extra`."""
    receipt_id = pipeline.post(at(2, Event="Door Opened", Odometer=123_456, Sensors={"t": [20.5, None]}))
    row = pipeline.row(f"receipt_id = '{receipt_id}'")
    assert (row["event"], row["event_as_sent"], row["category"]) == ("door_opened", "Door Opened", "other")
    assert json.loads(row["extra"]) == {"Odometer": 123_456, "Sensors": {"t": [20.5, None]}}
    (message,) = pipeline.messages("door_opened", count=1)
    assert message["extra"] == {"Odometer": 123_456, "Sensors": {"t": [20.5, None]}}


def test_what_only_rfc_8259_allows_is_kept_as_it_was_sent(pipeline: Pipeline) -> None:
    """An unpaired surrogate and a number beyond a float in unknown fields reach the row, the trace and `tail`."""
    receipt_id = pipeline.post(at(4, Event="lone_surrogate", Note="Depot \ud83d", Odometer=1e308, Far=10**400))
    row = pipeline.row(f"receipt_id = '{receipt_id}'")
    assert row["extra"] == f'{{"Note":"Depot \\ud83d","Odometer":1e+308,"Far":1{"0" * 400}}}'
    for command in (["trace", receipt_id], ["tail", "lone_surrogate", "--from-beginning", "--max", "1"]):
        result = pipeline.run(*command)
        assert result.returncode == 0, result.stderr
        assert "lone_surrogate" in result.stdout


def test_two_events_in_one_instant_are_both_kept(pipeline: Pipeline) -> None:
    """An overspeed and an SOS of one device in the same microsecond are two events."""
    pipeline.post(at(3))
    receipt_id = pipeline.post(at(3, Event="sos", Changes=1))
    pipeline.row(f"receipt_id = '{receipt_id}'")
    assert len(pipeline.select("SELECT 1 FROM telematics.events WHERE device_time = '2024-06-28 17:00:03'")) == 2


def test_a_change_of_the_registry_shows_without_a_restart(pipeline: Pipeline, tmp_path: Path) -> None:
    """Loaded, changed and removed with `devices load`, a device's vehicle is on its next event."""
    second = iter(range(10, 60))

    def shows(vehicle: str | None) -> bool | None:
        receipt_id = pipeline.post(at(next(second), Event="power_cut"))
        return pipeline.row(f"receipt_id = '{receipt_id}'")["vehicle"] == vehicle or None

    file = tmp_path / "fleet.csv"
    file.write_text("imei,vehicle,fleet,driver\n350612075195931,MP09-HG-1234,Indore,\n867000000000000,other,,\n")
    loaded = pipeline.run("devices", "load", str(file), "--json")
    assert json.loads(loaded.stdout) == {"loaded": 2, "unchanged": 0, "removed": 0, "bad_lines": []}
    until(lambda: shows("MP09-HG-1234"), "the vehicle on an event")
    file.write_text("imei,vehicle,fleet,driver\n867000000000000,other,,\n")
    replaced = pipeline.run("devices", "load", str(file), "--json", "--replace")
    assert json.loads(replaced.stdout) == {"loaded": 1, "unchanged": 1, "removed": 1, "bad_lines": []}
    until(lambda: shows(None), "no vehicle on an event")


def test_a_simulation_loses_and_doubles_nothing(pipeline: Pipeline) -> None:
    """`simulate` ends well; its second run with the same seed adds no row; then the account adds up."""
    arguments = ("--devices", "40", "--rate", "100", "--duration", "8", "--seed", "11", "--invalid", "0.05", "--json")
    first = pipeline.run("simulate", *arguments)
    report = json.loads(first.stdout)
    assert first.returncode == 0, first
    assert (report["lost"], report["doubled"], report["doubled_messages"]) == (0, 0, 0)
    assert (report["sent"], report["acknowledged"], report["already_stored"]) == (800, 800, 0)
    assert report["unique"] > 600
    assert report["dead_lettered"] > 20
    assert report["delay_samples"] > 0

    count = "SELECT (SELECT count() FROM telematics.events) AS e, (SELECT count() FROM telematics.dead_letters) AS d"
    before = pipeline.select(count)
    second = pipeline.run("simulate", *arguments)
    again = json.loads(second.stdout)
    assert second.returncode == 0, second
    assert again["already_stored"] == again["unique"] == report["unique"]
    assert settled(pipeline)["total"]["accepted"] > 1_600
    assert pipeline.select(count) == before


def test_all_that_was_published_keeps_the_contract(pipeline: Pipeline) -> None:
    """Every event and every dead letter that the tests above have caused, those of the simulated fleet included."""
    for table, topic, arguments in (("events", EVENTS, ()), ("dead_letters", DEAD_LETTER, ("--dead-letters",))):
        (row,) = pipeline.select(f"SELECT count() AS n FROM telematics.{table}")
        contract = validator(topic)
        for message in pipeline.messages(*arguments, count=row["n"]):
            contract.validate(message)


def test_a_row_that_is_missing_is_named_by_the_account(pipeline: Pipeline) -> None:
    """A row taken out of ClickHouse behind the pipeline's back: partition, raw offset, exit status 1."""
    receipt_id = pipeline.post(at(4))
    row = pipeline.row(f"receipt_id = '{receipt_id}'")
    settled(pipeline)
    pipeline.execute(f"DELETE FROM telematics.events_store WHERE event_id = '{row['event_id']}'")
    result = pipeline.run("account")
    offset = row["raw"]["offset"]
    assert result.returncode == 1
    named = f"partition {row['raw']['partition']}, raw offsets {offset} to {offset}: 1 unique but not in"
    assert named in result.stdout
