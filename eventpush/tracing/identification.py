"""Apply the rules to a payload, and compute the ids that its outcome will have. Pure."""

import msgspec

from schemas.dead_letter import Violation
from schemas.identity import digest_of_attempt, digest_of_payload, uuid_text
from schemas.replay import Replay
from schemas.validation import ClockLimits, ValidEvent, validate


class Identification(msgspec.Struct, frozen=True, kw_only=True):
    """An event's id and type, or every broken rule; `dead_letter_id` is the one that the payload has or would have."""

    dead_letter_id: str
    event_id: str | None = None
    event: str | None = None
    violations: list[Violation] = []

    @property
    def valid(self) -> bool:
        """Whether the payload keeps every rule. Its identity may still be a duplicate or a conflict."""
        return not self.violations


def identify(payload: bytes, received_us: int, clock: ClockLimits, replay: Replay | None = None) -> Identification:
    """Apply the rules to a payload that arrived at `received_us` (µs since the epoch), sent by a sender or a replay."""
    digest = digest_of_attempt(payload, replay.dead_letter_id, replay.attempt) if replay else digest_of_payload(payload)
    dead_letter_id = uuid_text(digest)
    found = validate(payload, received_us, clock)
    if not isinstance(found, ValidEvent):
        return Identification(dead_letter_id=dead_letter_id, violations=found)
    return Identification(dead_letter_id=dead_letter_id, event_id=found.event_id, event=found.event)
