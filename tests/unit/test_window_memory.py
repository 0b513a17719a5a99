"""What the window takes of the machine's memory, in a process of its own: full, and after everything has expired."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import psutil

from streams.memory_segment import MemorySegment
from streams.window import DeduplicationWindow
from tests.identities import random_rows

RETENTION_US = 3_600_000_000
IDENTITIES = 2_000_000  # so many that what the allocator keeps for itself is little
PARTITIONS = 4
BATCH_ROWS = 2_000
OTHER_BYTES = 1_000


class Taken(NamedTuple):
    """Bytes of resident memory beyond those of an empty window."""

    full: int
    expired: int


def test_memory_returns_when_identities_expire() -> None:
    """A full window takes less than 120 bytes of resident memory an identity; expired, less than a twentieth of it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        taken = process.submit(fill_and_expire).result()
    assert taken.full < 120 * IDENTITIES
    assert taken.expired < taken.full / 20


def fill_and_expire() -> Taken:
    """Windows as a worker has them: the tables of all partitions and segments grow side by side, batch by batch, and
    in between something is allocated that stays.
    """
    windows = [DeduplicationWindow(RETENTION_US, lambda _: MemorySegment()) for _ in range(PARTITIONS)]
    rng = np.random.default_rng(1)
    MemorySegment().add(random_rows(rng, BATCH_ROWS))  # whatever numpy takes for itself
    before = psutil.Process().memory_info().rss
    staying = []
    for number in range(IDENTITIES // BATCH_ROWS):
        staying.append(bytearray(OTHER_BYTES))
        windows[number % PARTITIONS].add(random_rows(rng, BATCH_ROWS), number * BATCH_ROWS * RETENTION_US // IDENTITIES)
    full = psutil.Process().memory_info().rss - before
    assert sum(map(len, windows)) == IDENTITIES
    for window in windows:
        window.advance(3 * RETENTION_US)
    assert sum(map(len, windows)) == 0
    return Taken(full, psutil.Process().memory_info().rss - before)
