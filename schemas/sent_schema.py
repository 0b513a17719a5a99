"""The JSON Schema (2020-12) of an event as the sender writes it, and an example of each type; from the declaration."""

from typing import Any

from schemas.event import GEOFENCE_NAME, SENT_FIELDS
from schemas.event_types import TYPES
from schemas.fields import SentField

_JSON_TYPE = {str: "string", int: "integer"}


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema of a valid event. It accepts a little more: a schema cannot compare two times."""
    return {
        "title": "Event",
        "description": "Unknown fields are kept.",
        "type": "object",
        "properties": {name: field_schema(sent) for name, sent in SENT_FIELDS.items()},
        "required": [name for name, sent in SENT_FIELDS.items() if not sent.nullable],
        "additionalProperties": True,
    }


def field_schema(sent: SentField) -> dict[str, Any]:
    """Return the schema of one field's value: its type and all of its rules."""
    schema: dict[str, Any] = {"type": _JSON_TYPE[sent.type]}
    for part in (*sent.rules, *((sent.format,) if sent.format else ())):
        schema |= part.schema
    described = f"{sent.description}: {sent.format.expected}" if sent.format else sent.description
    return {"description": described} | ({"anyOf": [schema, {"type": "null"}]} if sent.nullable else schema)


def example(event: str) -> dict[str, Any]:
    """Return an event of this type as the sender's API document writes it."""
    kind = TYPES[event]
    values = {name: sent.example for name, sent in SENT_FIELDS.items()}
    values |= {"Event": event, "Changes": min(50, kind.changes_range[1])}
    return values | ({GEOFENCE_NAME.name: "Indore depot"} if kind.has_geofence else {})
