"""Pauses between retries that double up to a bound, with jitter."""

import random


class Backoff:
    """The pauses of one retry loop, in seconds: `min_s`, twice that, and so on up to `max_s`.

    Each pause is varied by `jitter` (a fraction: 0.2 is ±20 %), so that many clients do not retry in step.
    """

    def __init__(self, min_s: float, max_s: float, *, jitter: float = 0.2) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._jitter = jitter
        self._base_s = min_s

    def next_s(self) -> float:
        """Return the next pause and double the one after it."""
        pause_s = self._base_s * random.uniform(1 - self._jitter, 1 + self._jitter)
        self._base_s = min(self._max_s, self._base_s * 2)
        return pause_s

    def reset(self) -> None:
        """Start again at the shortest pause, after a success."""
        self._base_s = self._min_s
