"""The contract with subscribers: it is current, it is valid, and what the stream stage publishes keeps it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker

from eventpush.contract.export import export, files
from schemas.contract import schemas
from schemas.event_types import TYPES
from schemas.topics import DEAD_LETTER, EVENTS, OTHER, WINDOW, all_topics, of_type
from tests.unit.published_records import read
from tests.unit.test_batch_processor import EXAMPLES, SAMPLE, process, record

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KIT = ROOT / "examples" / "consumers"
ASYNCAPI = json.loads((Path(__file__).parent / "asyncapi" / "3.1.0.json").read_text())
VALIDATORS = {
    topic: Draft202012Validator(schema, format_checker=FormatChecker()) for topic, schema in schemas().items()
}


def published(*values: bytes | dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The type and value of each event that the stream stage makes of these payloads."""
    result = process(*(record(offset, value) for offset, value in enumerate(values)))
    return list(zip(result.types, (json.loads(record.value or b"") for record in read(result.events)), strict=True))


def assert_keeps_the_contract(event: str, value: dict[str, Any]) -> None:
    """The event is valid on the topic of all events and on its type's."""
    VALIDATORS[EVENTS].validate(value)
    VALIDATORS[of_type(event) if event in TYPES else OTHER].validate(value)


def test_the_committed_files_are_current(tmp_path: Path) -> None:
    """`eventpush contract export docs` would change nothing, and no file of a topic that is gone is left."""
    for path in export(tmp_path):
        name = path.relative_to(tmp_path)
        assert (DOCS / name).read_text() == path.read_text(), f"{name}: run `eventpush contract export docs`"
    committed = {
        path.relative_to(DOCS).as_posix() for kind in ("contracts", "topics") for path in (DOCS / kind).iterdir()
    }
    assert committed == set(files())


def test_every_topic_but_the_window_has_a_schema() -> None:
    """Its records are binary, and no one else's; each schema is valid JSON Schema 2020-12."""
    assert set(VALIDATORS) == {topic.name for topic in all_topics()} - {WINDOW}
    for validator in VALIDATORS.values():
        Draft202012Validator.check_schema(validator.schema)


def test_the_asyncapi_document_is_valid() -> None:
    """It keeps AsyncAPI's own schema, Kafka bindings included, and the schemas that it refers to exist."""
    document = yaml.safe_load((DOCS / "contracts" / "asyncapi.yaml").read_text())
    Draft7Validator(ASYNCAPI).validate(document)
    for channel in document["channels"].values():
        assert (DOCS / "contracts" / channel["messages"]["record"]["payload"]["schema"]["$ref"]).exists()
    binding = document["channels"][EVENTS]["bindings"]["kafka"]
    binding["partitions"] = "eight"
    assert not Draft7Validator(ASYNCAPI).is_valid(document)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_keeps_the_contract(path: Path) -> None:
    """Each example of the sender's API, published."""
    ((event, value),) = published(path.read_bytes())
    assert_keeps_the_contract(event, value)


@given(
    event=st.sampled_from([*TYPES, "Harsh Braking", "überfall"]),
    changes=st.integers(-(2**63), 2**63 - 1),
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    imei=st.from_regex("[0-9]{15}", fullmatch=True),
    text=st.none() | st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40),
    unknown=st.dictionaries(st.text(st.characters(exclude_categories=["C"]), min_size=9), st.integers() | st.none()),
)
def test_every_event_that_is_published_keeps_the_contract(
    event: str, changes: int, latitude: float, longitude: float, imei: str, text: str | None, unknown: dict[str, Any]
) -> None:
    """Whatever its type, value, place, texts and unknown fields; what is refused is a valid dead letter."""
    sent = SAMPLE | {"Event": event, "Changes": changes, "IMEI": imei, "Location": text, "Geofence_Name": text}
    result = process(record(0, unknown | sent | {"Coordinates": f"{latitude:.6f},{longitude:.6f}"}))
    for kind, published_record in zip(result.types, read(result.events), strict=True):
        assert_keeps_the_contract(kind, json.loads(published_record.value or b""))
    for _, value, _ in result.dead_letters:
        VALIDATORS[DEAD_LETTER].validate(json.loads(value))
    assert len(result.types) + len(result.dead_letters) == 1


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", json.dumps(SAMPLE | {"Changes": "x"}).encode()])
def test_every_dead_letter_keeps_the_contract(payload: bytes) -> None:
    """Bytes that are no text, no JSON, no object, no event."""
    (letter,) = process(record(0, payload)).dead_letters
    VALIDATORS[DEAD_LETTER].validate(json.loads(letter[1]))


def test_a_conflict_keeps_the_contract() -> None:
    """The dead letter that names the accepted event."""
    (letter,) = process(record(0, SAMPLE), record(1, SAMPLE | {"Changes": 51})).dead_letters
    value = json.loads(letter[1])
    assert value["conflict_with"]
    VALIDATORS[DEAD_LETTER].validate(value)


@pytest.mark.parametrize("changed", [{"changes": "50"}, {"event": "sos"}, {"severity": "loud"}, {"imei": None}])
def test_an_event_that_breaks_the_contract_is_found(changed: dict[str, Any]) -> None:
    """The schema refuses another type, another event, an unknown severity, and a null that is not allowed."""
    ((event, value),) = published(SAMPLE)
    assert not VALIDATORS[of_type(event)].is_valid(value | changed)


@pytest.mark.parametrize(
    "consumer", [path for path in KIT.glob("*/*") if path.suffix in {".py", ".mjs", ".java", ".go"}]
)
def test_a_consumer_of_the_kit_is_short(consumer: Path) -> None:
    """Less than 60 lines, as its README says."""
    assert len(consumer.read_text().splitlines()) < 60
