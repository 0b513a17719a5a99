"""The JSON Schemas (2020-12) of what subscribers read: events of each type, and dead letters; from the declarations."""

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.event_types import TYPES, type_of
from schemas.fields import fields_of
from schemas.topics import DEAD_LETTER, EVENTS, OTHER, of_type

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> Mapping[str, Schema]:
    """Return the schema of a record's value, by topic.

    The schema of `telematics.event.other.v1` also describes the topics of types that get theirs with a first event.
    """
    return {
        EVENTS: event_schema(EVENTS),
        OTHER: event_schema(OTHER),
        **{of_type(event): event_schema(of_type(event), event) for event in TYPES},
        DEAD_LETTER: _schema(DEAD_LETTER, DeadLetter),
    }


def event_schema(topic: str, event: str = "") -> Schema:
    """Return the schema of an event on this topic; of the named type only, if there is one."""
    schema = _schema(topic, Event)
    if event:
        kind, properties = type_of(event), schema["properties"]
        fixed = {"event": event, "category": kind.category, "severity": kind.severity}
        for name, value in fixed.items():
            properties[name] |= {"const": value}
        if kind.changes:
            properties["changes"]["description"] = kind.changes
    return schema


def _schema(topic: str, struct: type[msgspec.Struct]) -> Schema:
    """Return the schema of a declared struct: types from its annotations, the rest from its fields.

    A field that was added by a later release is not required: a topic may hold records of the earlier one.
    """
    _, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema = components.pop(struct.__name__)
    fields = fields_of(struct)
    for name, field in fields.items():
        schema["properties"][name] |= {"description": field.comment, **field.schema}
    schema["required"] = [name for name, field in fields.items() if not field.since]
    return {"$schema": _DIALECT, "$id": f"urn:eventpush:{topic}", **schema, "$defs": components}
