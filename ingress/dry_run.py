"""The event's rules at the ingress, for strict mode and the dry run: the rules that the stream stage applies."""

from collections.abc import Iterator, Sequence
from typing import Any

from ingress.errors import Rejection, RequestError
from ingress.event_parser import Event
from schemas import topics
from schemas.dead_letter import Violation
from schemas.validation import ClockLimits, ValidEvent, validate

Validated = ValidEvent | list[Violation]


def validated(events: Sequence[Event], arrival_us: int, clock: ClockLimits) -> Iterator[Validated]:
    """Validate one event at a time, for many take long: the valid event, or the rules that it breaks."""
    return (validate(event.value, arrival_us, clock) for event in events)


def destinations(outcomes: Sequence[Validated]) -> list[dict[str, Any]]:
    """Determine identity and topic of every event. Raise `RequestError` (422) with every broken rule."""
    errors = [
        _error(violation, index if len(outcomes) > 1 else None)
        for index, outcome in enumerate(outcomes)
        if not isinstance(outcome, ValidEvent)
        for violation in outcome
    ]
    if errors:
        rules = "1 rule" if len(errors) == 1 else f"{len(errors)} rules"
        raise RequestError(Rejection.BROKEN_RULES, f"{rules} broken; see errors", errors=errors)
    return [_destination(outcome) for outcome in outcomes if isinstance(outcome, ValidEvent)]


def _destination(event: ValidEvent) -> dict[str, Any]:
    return {"event_id": event.event_id, "topic": topics.of_type(event.event)}


def _error(violation: Violation, index: int | None) -> dict[str, Any]:
    """Describe a broken rule with the JSON Pointer (RFC 6901) of its field, from the root of the body."""
    path = [] if index is None else [str(index)]
    path += [violation.field.replace("~", "~0").replace("/", "~1")] if violation.field else []
    return {
        "pointer": "".join(f"/{part}" for part in path),
        "reason": str(violation.code),
        "found": violation.found,
        "expected": violation.expected,
    }
