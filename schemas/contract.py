"""The JSON Schemas (2020-12) of what the topics carry, values and headers, from the declarations."""

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas import sent_schema
from schemas.account import BatchAccount
from schemas.dead_letter import DeadLetter
from schemas.device import Device
from schemas.device_latest import DeviceLatest
from schemas.erasure import Erasure
from schemas.event import Event
from schemas.event_types import TYPES, type_of
from schemas.fields import fields_of
from schemas.headers import Header, headers_of
from schemas.topics import ACCOUNT, DEAD_LETTER, DEVICES, ERASED, EVENTS, LATEST, OTHER, RAW, of_type, schema_id

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPE_OF = {of_type(event): event for event in TYPES}  # by topic


def schemas() -> Mapping[str, Schema]:
    """Return the schema of a record's value, by topic.

    The schema of `telematics.event.other.v1` also describes the topics of types that get theirs with a first event.
    A raw record may break its schema, and becomes a dead letter then.
    """
    return {
        RAW: _identified(RAW, sent_schema.event_schema()),
        EVENTS: event_schema(EVENTS),
        DEAD_LETTER: _schema(DEAD_LETTER, DeadLetter),
        DEVICES: _identified(DEVICES, _components(Device)),
        LATEST: _schema(LATEST, DeviceLatest),
        ACCOUNT: _identified(ACCOUNT, _components(BatchAccount)),
        ERASED: _identified(ERASED, _components(Erasure)),
        OTHER: event_schema(OTHER),
        **{topic: event_schema(topic) for topic in _TYPE_OF},
    }


def event_schema(topic: str) -> Schema:
    """Return the schema of an event on this topic."""
    schema = _schema(topic, Event)
    if topic in _TYPE_OF:
        event, properties = _TYPE_OF[topic], schema["properties"]
        kind = type_of(event)
        fixed = {"event": event, "category": kind.category, "severity": kind.severity}
        for name, value in fixed.items():
            properties[name] |= {"const": value}
        if kind.changes:
            properties["changes"]["description"] = kind.changes
    return schema


def headers_schema(topic: str) -> Schema | None:
    """Return the schema of the headers of the topic's records, as texts; None if they have none."""
    headers = headers_of(topic)
    if not headers:
        return None
    return {
        "type": "object",
        "properties": {header.name: _header_schema(header, _TYPE_OF.get(topic)) for header in headers},
        "required": [header.name for header in headers if not header.optional],
    }


def _header_schema(header: Header, event: str | None) -> Schema:
    schema = {"type": "string", "description": header.description}
    text = header.of_type(event) if header.of_type and event else header.text
    if text:
        schema["const"] = text
    return schema | (dict(fields_of(Event)[header.field].schema) if header.field else {})


def _schema(topic: str, struct: type[msgspec.Struct]) -> Schema:
    """Return the schema of a declared struct: types from its annotations, the rest from its fields.

    A field that was added by a later release is not required: a topic may hold records of the earlier one.
    """
    schema, fields = _components(struct), fields_of(struct)
    for name, field in fields.items():
        schema["properties"][name] |= {"description": field.comment, **field.schema}
    schema["required"] = [name for name, field in fields.items() if not field.since]
    return _identified(topic, schema)


def _components(struct: type[msgspec.Struct]) -> Schema:
    """Return the schema of a struct, with those that it refers to."""
    _, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema: Schema = components.pop(struct.__name__)
    return schema | {"$defs": components}


def _identified(topic: str, schema: Schema) -> Schema:
    return {"$schema": _DIALECT, "$id": schema_id(topic), **schema}
