"""What a trace is asked for: a receipt, an id, or a device and a time. Pure."""

import re

import msgspec

from eventpush.tracing.facts import Arrival
from eventpush.tracing.identification import identify
from runtime.platform.errors import OperatorError
from schemas.validation import ClockLimits

_RECEIPT = re.compile(r"[0-9a-f]{12}-[0-9a-f]+(\.[0-9]+)?")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of `receipt`, `id` (an event's or a dead letter's) and `imei` is set; times in µs since the epoch."""

    receipt: str | None = None
    id: str | None = None
    imei: str | None = None
    since_us: int
    until_us: int

    def matches(self, arrival: Arrival, clock: ClockLimits) -> bool:
        """Return whether a raw record is asked for."""
        if self.receipt is not None:
            receipt = arrival.receipt_id or ""
            return receipt == self.receipt or receipt.startswith(f"{self.receipt}.")
        if self.imei is not None:
            return f'"{self.imei}"'.encode() in arrival.payload
        identification = identify(arrival.payload, arrival.received_us, clock, arrival.replay)
        return self.id in {identification.event_id, identification.dead_letter_id}


def of_identifier(text: str, since_us: int, until_us: int) -> Wanted:
    """Distinguish a receipt from an id; raise `OperatorError` for anything else."""
    lower = text.strip().lower()
    if _UUID.fullmatch(lower):
        return Wanted(id=lower, since_us=since_us, until_us=until_us)
    if _RECEIPT.fullmatch(lower):
        return Wanted(receipt=lower, since_us=since_us, until_us=until_us)
    raise OperatorError(
        f"{text!r} is neither a receipt nor an event_id",
        "a receipt is the X-Receipt-Id of a response, like 3f9a0c51d2e4-1f; an event_id is a UUID",
    )
