"""What a replay would do with one dead letter: payload before and after, and what the rules say. Pure."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from eventpush.dead_letters.letter import Letter
from eventpush.dead_letters.repair import Function, Repair, RepairError, apply
from eventpush.tracing.identification import Identification, identify
from schemas.validation import ClockLimits


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter and what a replay would send; `left_out` says why nothing would be sent."""

    letter: Letter
    after: bytes | None = None
    checked: Identification | None = None
    left_out: str | None = None

    @property
    def label(self) -> str:
        """What the rules say in a word or two, as summaries count it."""
        if self.checked is None:
            return "left out"
        return "valid" if self.checked.valid else "still breaks a rule"


def preview(letter: Letter, repair: Repair, function: Function | None, clock: ClockLimits) -> Preview:
    """Repair the payload and apply the rules as of its first arrival."""
    if letter.left_out_because is not None:
        return Preview(letter=letter, left_out=letter.left_out_because)
    try:
        after = apply(repair, letter.payload, function)
    except RepairError as error:
        return Preview(letter=letter, left_out=str(error))
    return Preview(letter=letter, after=after, checked=identify(after, letter.received_us, clock))


class Summary(msgspec.Struct):
    """Counts over all previews."""

    results: Counter[str] = msgspec.field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)  # (field, code), of what is still broken
    left_out: Counter[str] = msgspec.field(default_factory=Counter)  # why

    def add(self, previews: Iterable[Preview]) -> None:
        """Count more previews."""
        for found in previews:
            self.results[found.label] += 1
            if found.left_out is not None:
                self.left_out[found.left_out] += 1
            elif found.checked is not None:
                self.reasons.update((v.field or "payload", v.code) for v in found.checked.violations)
