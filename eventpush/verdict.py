"""What the real rules say of a payload, with the ids that its outcome will have. Pure."""

import msgspec

from runtime.platform.settings import Settings
from schemas.dead_letter import Violation
from schemas.identity import digest_of, digest_of_payload, uuid_text
from schemas.validation import ClockLimits, ValidEvent, validate


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An event's id and type, or every broken rule; `dead_letter_id` is the one that the payload has or would have."""

    dead_letter_id: str
    event_id: str | None = None
    event: str | None = None
    violations: list[Violation] = []

    @property
    def valid(self) -> bool:
        """Whether the payload keeps every rule. Its identity may still be a duplicate or a conflict."""
        return not self.violations


def clock_limits(settings: Settings) -> ClockLimits:
    """Return the bounds on clocks that the stream stage uses with these settings."""
    return ClockLimits.of_seconds(settings.future_skew_s, settings.clock_lead_max_s)


def judge(payload: bytes, received_us: int, clock: ClockLimits) -> Verdict:
    """Apply the rules to a payload that arrived at `received_us` (µs since the epoch)."""
    dead_letter_id = uuid_text(digest_of_payload(payload))
    found = validate(payload, received_us, clock)
    if not isinstance(found, ValidEvent):
        return Verdict(dead_letter_id=dead_letter_id, violations=found)
    digest = digest_of(found.imei, found.device_us, found.event, found.geofence_name)
    return Verdict(dead_letter_id=dead_letter_id, event_id=uuid_text(digest), event=found.event)
