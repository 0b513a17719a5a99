"""Rows of the window that stand for identities which nothing else has."""

import numpy as np

from streams.window import WORDS, Rows


def random_rows(random: np.random.Generator, count: int) -> Rows:
    """So many rows of as many identities, each with a content."""
    rows = random.integers(1, 2**64 - 1, (count, WORDS), np.uint64)
    rows[:, 0] |= np.uint64(1 << 63)
    return rows
