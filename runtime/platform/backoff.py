"""Exponential backoff with jitter, for every loop that retries."""

import random


class Backoff:
    """Delays that double from `first_s` up to `max_s`, each spread by ±`jitter` (a share of the delay, 0 to 1)."""

    def __init__(self, first_s: float, max_s: float, jitter: float = 0.2) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter
        self._delay_s = first_s

    def next_s(self) -> float:
        """Return the delay before the next attempt, in seconds."""
        delay_s = self._delay_s
        self._delay_s = min(delay_s * 2, self._max_s)
        return delay_s * random.uniform(1 - self._jitter, 1 + self._jitter)

    def reset(self) -> None:
        """Start again at `first_s`, after a success."""
        self._delay_s = self._first_s
