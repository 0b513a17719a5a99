"""Write the contract's files below a directory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventpush.contract.asyncapi import document
from eventpush.contract.topic_page import page
from runtime.platform import settings
from schemas.contract import headers_schema, schemas
from schemas.topics import all_topics


def files() -> Mapping[str, str]:
    """Return each file's text by its path, at the default settings."""
    defaults, described = settings.load({}), schemas()
    return {
        # JSON is YAML too (YAML 1.2, 1.3): no YAML library is needed at run time.
        "contracts/asyncapi.yaml": _text(document(defaults)),
        **{f"contracts/{topic}.schema.json": _text(schema) for topic, schema in described.items()},
        **{
            f"topics/{topic.name}.md": page(topic, described.get(topic.name), headers_schema(topic.name), defaults)
            for topic in all_topics()
        },
    }


def export(directory: Path) -> list[Path]:
    """Write all files and return their paths."""
    written = []
    for name, text in files().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
