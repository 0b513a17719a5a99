"""No breaking change by accident: today's contract keeps what the last release promised."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas.topics import DEAD_LETTER, DEVICES, EVENTS, of_type
from tests.contract.compatibility import RELEASED, REMEDY, breaking_changes, contract

SOS = of_type("sos")


def test_todays_contract_keeps_that_of_the_last_release() -> None:
    """Each broken promise names its field and the remedy."""
    assert breaking_changes(json.loads(RELEASED.read_text()), contract()) == []


def _changed(topic: str, part: str, change: Callable[[dict[str, Any]], Any]) -> list[str]:
    today = json.loads(json.dumps(contract()))  # nothing shared between topics
    change(today[topic][part])
    return breaking_changes(contract(), today)


def _properties(name: str, **keywords: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda schema: schema["properties"].__setitem__(name, keywords)


def _add(name: str, *, required: bool = False) -> Callable[[dict[str, Any]], Any]:
    def change(schema: dict[str, Any]) -> None:
        schema["properties"][name] = {"type": "string", "description": "new"}
        schema["required"] += [name] * required

    return change


@pytest.mark.parametrize(
    ("topic", "part", "change"),
    [
        (SOS, "value", _add("battery")),
        (SOS, "value", _add("battery", required=True)),
        (SOS, "headers", _add("ce_fleet")),
        (SOS, "value", lambda schema: schema["$defs"]["RawPosition"]["properties"].update(epoch={"type": "integer"})),
        (SOS, "value", lambda schema: schema["properties"]["event_id"].update(description="said in other words")),
        (SOS, "value", lambda schema: schema["properties"]["location"].update(anyOf=[{"type": "string"}])),
        (EVENTS, "value", lambda schema: schema["properties"]["severity"]["enum"].remove("info")),
        (SOS, "value", lambda schema: schema["required"].append("sender")),
    ],
    ids=["optional field", "required field", "header", "nested field", "description", "null no more", "fewer values",
         "always there now"],
)  # fmt: skip
def test_a_change_that_breaks_nobody_passes(topic: str, part: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """What a subscriber who ignores unknown fields does not notice."""
    assert _changed(topic, part, change) == []


@pytest.mark.parametrize(
    ("topic", "part", "change", "said"),
    [
        (SOS, "value", lambda schema: schema["properties"].pop("fleet"), f"{SOS} value.fleet: removed"),
        (SOS, "headers", lambda schema: schema["properties"].pop("ce_id"), f"{SOS} headers.ce_id: removed"),
        (SOS, "value", _properties("changes", type="string"), f"{SOS} value.changes: type was integer, is string"),
        (SOS, "value", _properties("changes", type="number"), f"{SOS} value.changes: type was integer, is number"),
        (SOS, "value", _properties("imei_valid", anyOf=[{"type": "boolean"}, {"type": "null"}]),
         f"{SOS} value.imei_valid: may be null, which it was not"),
        (SOS, "value", lambda schema: schema["required"].remove("imei"),
         f"{SOS} value.imei: was always there, is optional"),
        (DEAD_LETTER, "value", lambda schema: schema["properties"]["stage"]["enum"].append("ingress"),
         f"{DEAD_LETTER} value.stage: enum was ['streams', 'sink'], is ['streams', 'sink', 'ingress']"),
        (SOS, "value", lambda schema: schema["properties"]["severity"].update(const="warning"),
         f"{SOS} value.severity: const was 'critical', is 'warning'"),
        (SOS, "value", lambda schema: schema["properties"]["event_id"].pop("format"),
         f"{SOS} value.event_id: format was 'uuid', is None"),
        (SOS, "value", lambda schema: schema["properties"]["imei"].update(pattern="^[0-9]{16}$"),
         f"{SOS} value.imei: pattern was '^[0-9]{{15}}$', is '^[0-9]{{16}}$'"),
        (SOS, "value", lambda schema: schema["properties"]["latitude"].update(maximum=180),
         f"{SOS} value.latitude: maximum was 90, is 180"),
        (SOS, "value", lambda schema: schema["properties"]["warnings"].update(items={"type": "integer"}),
         f"{SOS} value.warnings[]: type was string, is integer"),
        (SOS, "value", lambda schema: schema["$defs"]["RawPosition"]["properties"].pop("offset"),
         f"{SOS} value.raw.offset: removed"),
        (DEAD_LETTER, "value", lambda schema: schema["$defs"]["Violation"]["properties"].pop("code"),
         f"{DEAD_LETTER} value.reasons[].code: removed"),
        (DEAD_LETTER, "value", lambda schema: schema["$defs"]["Conflict"]["properties"].pop("event_id"),
         f"{DEAD_LETTER} value.conflict_with.event_id: removed"),
        (SOS, "headers", lambda schema: schema["properties"]["ce_type"].update(const="sos"),
         f"{SOS} headers.ce_type: const was '{SOS}', is 'sos'"),
    ],
)  # fmt: skip
def test_a_breaking_change_is_named(topic: str, part: str, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    """With its topic, its field, what happened to it, and what to do."""
    assert _changed(topic, part, change) == [f"{said}; {REMEDY}"]


def test_a_topic_that_is_gone_or_made_otherwise_is_named() -> None:
    """A removed topic, another key, and other cleanup."""
    today = copy.deepcopy(dict(contract()))
    del today[SOS]
    today[DEVICES] = {**today[DEVICES], "compacted": False}
    today[EVENTS] = {**today[EVENTS], "key": "event_id"}
    assert breaking_changes(contract(), today) == [
        f"{EVENTS}: key was 'IMEI', is 'event_id'; {REMEDY}",
        f"{DEVICES}: compacted was True, is False; {REMEDY}",
        f"{SOS}: topic removed; {REMEDY}",
    ]
