"""The event's rules at the door: for strict mode and for the dry run, the same code that judges events later."""

from collections.abc import Iterator, Sequence
from typing import Any

from ingress.errors import Reason, RequestError
from ingress.event_parser import Event
from schemas import topics
from schemas.dead_letter import Violation
from schemas.identity import digest_of, uuid_text
from schemas.validation import ClockLimits, ValidEvent, validate

Judged = ValidEvent | list[Violation]


def judge(events: Sequence[Event], arrival_us: int, clock: ClockLimits) -> Iterator[Judged]:
    """What each event is, or which rules it breaks; one at a time, for it may take long."""
    return (validate(event.value, arrival_us, clock) for event in events)


def destinations(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Where each event would go: identity and topic. Raises `RequestError` (422) with every broken rule."""
    errors = [
        _error(violation, index if len(judged) > 1 else None)
        for index, outcome in enumerate(judged)
        if not isinstance(outcome, ValidEvent)
        for violation in outcome
    ]
    if errors:
        rules = "one rule is" if len(errors) == 1 else f"{len(errors)} rules are"
        raise RequestError(Reason.BROKEN_RULES, f"{rules} broken: see errors", errors=errors)
    return [_destination(outcome) for outcome in judged if isinstance(outcome, ValidEvent)]


def _destination(event: ValidEvent) -> dict[str, Any]:
    digest = digest_of(event.imei, event.device_us, event.event, event.geofence_name)
    return {"event_id": uuid_text(digest), "topic": topics.of_type(event.event)}


def _error(violation: Violation, index: int | None) -> dict[str, Any]:
    """A broken rule with the JSON Pointer (RFC 6901) of its field, from the root of what was sent."""
    place = [] if index is None else [str(index)]
    place += [violation.field.replace("~", "~0").replace("/", "~1")] if violation.field else []
    return {
        "pointer": "".join(f"/{part}" for part in place),
        "reason": str(violation.code),
        "found": violation.found,
        "expected": violation.expected,
    }
