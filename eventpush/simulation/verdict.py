"""What became of the events that were sent: expected against found. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from eventpush.simulation.fleet import Fate, Identity
from eventpush.simulation.sender import Delivery


class Expected(msgspec.Struct):
    """What must be there, by what was acknowledged with 200."""

    events: set[Identity]  # one row and one message each
    dead_letters: set[str]  # payloads, one row each
    known: set[Identity]  # all that was sent, acknowledged or not: none may be there twice
    unacknowledged: int


def expected(deliveries: Iterable[Delivery]) -> Expected:
    """Derive the expected outcome of these deliveries."""
    found = Expected(set(), set(), set(), 0)
    for delivery in deliveries:
        event, acknowledged = delivery.event, delivery.acknowledged_at > 0
        found.unacknowledged += not acknowledged
        if event.fate in (Fate.VALID, Fate.REPEAT):
            found.known.add(event.identity)
            if acknowledged:
                found.events.add(event.identity)
        elif acknowledged:
            found.dead_letters.add(event.body.decode())
    return found


def missing(wanted: Expected, rows: Mapping[Identity, int], dead_letters: Mapping[str, int]) -> int:
    """How much that was acknowledged is in neither table."""
    return len(wanted.events - rows.keys()) + len(wanted.dead_letters - dead_letters.keys())


def doubled(wanted: Expected, rows: Mapping[Identity, int], dead_letters: Mapping[str, int]) -> int:
    """How many identities and payloads are there more than once."""
    return sum(rows.get(identity, 0) > 1 for identity in wanted.known) + sum(
        dead_letters.get(payload, 0) > 1 for payload in wanted.dead_letters
    )


def more_than_once(wanted: Expected, messages: Counter[Identity]) -> int:
    """How many identities a topic carries more than once."""
    return sum(messages[identity] > 1 for identity in wanted.known)


def quantile(values: Iterable[float], share: float) -> float | None:
    """Return the smallest value that at least this share of all values does not exceed; None without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
