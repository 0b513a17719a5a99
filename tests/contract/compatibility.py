"""Compare today's contract with that of the last release; `python -m tests.contract.compatibility` records a release.

`jsoncompat` decides whether every value of today is one that the released schema allows. Around it we find the field,
say what happened to it, and look at `format` and `pattern`, which it ignores.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsoncompat

from eventpush.contract.asyncapi import described_topics
from schemas.contract import headers_schema, schemas
from schemas.topics import RAW

Schema = dict[str, Any]
#: By topic: `key`, `cleanup`, and the schemas `value` and `headers`.
Contract = Mapping[str, Mapping[str, Any]]

RELEASED = Path(__file__).parent / "released_contract.json"
REMEDY = "publish the change on a .v2 topic beside .v1, see What may change in docs/subscribers.md"


def contract() -> Contract:
    """Return today's contract with subscribers. Raw records are as their senders wrote them: they promise nothing."""
    values = schemas()
    return {
        topic.name: {
            "key": topic.key,
            "compacted": topic.compacted,
            "value": values[topic.name],
            "headers": headers_schema(topic.name) or {"type": "object", "properties": {}, "required": []},
        }
        for topic in described_topics()
        if topic.name != RAW
    }


def breaking_changes(released: Contract, today: Contract) -> list[str]:
    """Return each change that may break a subscriber: topic, field, what happened, and what to do."""
    return [f"{where}: {what}; {REMEDY}" for where, what in _of_topics(released, today)]


def _of_topics(released: Contract, today: Contract) -> Iterator[tuple[str, str]]:
    for topic, old in released.items():
        if topic not in today:
            yield topic, "topic removed"
            continue
        for name in ("key", "compacted"):
            if old[name] != today[topic][name]:
                yield topic, f"{name} was {old[name]!r}, is {today[topic][name]!r}"
        for part in ("value", "headers"):
            before, now = old[part], today[topic][part]
            yield from _of_schema(f"{topic} {part}", before, now, before.get("$defs", {}), now.get("$defs", {}))


def _of_schema(where: str, old: Schema, new: Schema, old_defs: Schema, new_defs: Schema) -> Iterator[tuple[str, str]]:
    old, new = _resolved(old, old_defs), _resolved(new, new_defs)
    if not _types(new) <= _types(old):
        yield where, _what_types_do(_types(old), _types(new))
    elif "properties" in old:
        yield from _of_fields(where, old, new, old_defs, new_defs)
    elif "items" in old:
        yield from _of_schema(f"{where}[]", old["items"], new.get("items", {}), old_defs, new_defs)
    elif (differs := [name for name in ("format", "pattern") if old.get(name) != new.get(name)]) or not _allows(
        old, new
    ):
        changed = differs or [
            name for name in {**old, **new} if old.get(name) != new.get(name) and name != "description"
        ]
        yield where, ", ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in sorted(changed))


def _of_fields(where: str, old: Schema, new: Schema, old_defs: Schema, new_defs: Schema) -> Iterator[tuple[str, str]]:
    for name, field in old["properties"].items():
        if name not in new.get("properties", {}):
            yield f"{where}.{name}", "removed"
        elif name in old["required"] and name not in new["required"]:
            yield f"{where}.{name}", "was always there, is optional"
        else:
            yield from _of_schema(f"{where}.{name}", field, new["properties"][name], old_defs, new_defs)


def _types(schema: Schema) -> set[str]:
    return {option.get("type", "anything") for option in schema.get("anyOf", [schema])}


def _what_types_do(old: set[str], new: set[str]) -> str:
    if new == old | {"null"}:
        return "may be null, which it was not"
    return f"type was {' or '.join(sorted(old))}, is {' or '.join(sorted(new))}"


def _resolved(schema: Schema, defs: Schema) -> Schema:
    """Follow references, also that of a value or null: its null is in `_types` only."""
    options = schema.get("anyOf", [schema])
    resolved = [defs[option["$ref"].rsplit("/", 1)[1]] if "$ref" in option else option for option in options]
    (value,) = [option for option in resolved if option.get("type") != "null"] if len(options) > 1 else resolved
    nullable = [{"type": "null"}] if len(options) > 1 else []
    return value | ({"anyOf": [{"type": value.get("type", "anything")}, *nullable]} if nullable else {})


def _allows(old: Schema, new: Schema) -> bool:
    return bool(jsoncompat.check_compat(json.dumps(old), json.dumps(new), "serializer"))


if __name__ == "__main__":
    RELEASED.write_text(json.dumps(contract(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
