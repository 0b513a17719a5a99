"""A replay sends dead letters again through the raw topic: what its records carry in their headers."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from schemas.topics import HEADER_REPLAY, HEADER_REPLAY_ATTEMPT, HEADER_REPLAY_LETTER

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")


class Replay(NamedTuple):
    """Which replay sent a raw record, the dead letter that it sends again, and the number of the attempt, from 1."""

    replay_id: str
    dead_letter_id: str
    attempt: int

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers of the raw record that say this."""
        return [
            (HEADER_REPLAY, self.replay_id.encode()),
            (HEADER_REPLAY_LETTER, self.dead_letter_id.encode()),
            (HEADER_REPLAY_ATTEMPT, b"%d" % self.attempt),
        ]


def replay_of(headers: Iterable[tuple[str, bytes | None]]) -> Replay | None:
    """Read a raw record's headers; None if it is no replay, or if one of the three headers cannot be read."""
    named = {name: (value or b"").decode("ascii", "replace") for name, value in headers}
    replay_id, letter_id = named.get(HEADER_REPLAY, ""), named.get(HEADER_REPLAY_LETTER, "")
    attempt = named.get(HEADER_REPLAY_ATTEMPT, "")
    readable = _UUID.fullmatch(replay_id) and _UUID.fullmatch(letter_id) and _ATTEMPT.fullmatch(attempt)
    return Replay(replay_id, letter_id, int(attempt)) if readable else None
