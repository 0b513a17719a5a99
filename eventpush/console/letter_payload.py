"""A dead letter's payload, as it is shown: each field beside the rules that it breaks. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eventpush.console import wording
from schemas.dead_letter import Violation


def fields(payload: str, reasons: Sequence[Violation]) -> list[tuple[str, str, str]]:
    """Return each field of a payload, its value, and the rules that it breaks; missing fields last."""
    try:
        decoded = json.loads(payload)
    except ValueError:
        decoded = None
    sent: Mapping[str, Any] = decoded if isinstance(decoded, dict) else {}
    broken: dict[str, list[str]] = {}
    for reason in reasons:
        broken.setdefault(reason.field, []).append(f"{reason.code}: found {reason.found}, expected {reason.expected}")
    rows = [
        (name, json.dumps(value, ensure_ascii=False), "; ".join(broken.pop(name, []))) for name, value in sent.items()
    ]
    return rows + [(name or "(payload)", wording.UNKNOWN, "; ".join(lines)) for name, lines in broken.items()]


def pretty(payload: str) -> str:
    """Return a payload indented, if it is JSON."""
    try:
        return json.dumps(json.loads(payload), ensure_ascii=False, indent=2)
    except ValueError:
        return payload


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
