"""A generation of the window in memory."""

import numpy as np
import numpy.typing as npt

from streams.window import WORDS, Rows

_FULLEST = 0.65  # rows per slot: more makes probing long
_GROWTH = 1.5


class MemoryGeneration:
    """An open-addressing hash table of rows in one numpy array: 50 to 75 bytes an identity, freed whole.

    All rows of a call are probed together: a handful of array operations for the whole batch.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._slots: Rows = np.zeros((capacity, WORDS), np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._slots.nbytes

    def find(self, rows: Rows) -> Rows:
        """The content (word 3) stored for each row's identity; 0 where there is none. Shape (n,)."""
        found = np.zeros(len(rows), np.uint64)
        pending, slots = np.arange(len(rows)), self._home(rows)
        while len(pending):
            stored, wanted = self._slots[slots], rows[pending]
            same = (stored[:, 2] == wanted[:, 2]) & (stored[:, 1] == wanted[:, 1]) & (stored[:, 0] == wanted[:, 0])
            found[pending[same]] = stored[same, 3]
            further = ~same & (stored[:, 0] != 0)
            pending, slots = pending[further], self._next(slots[further])
        return found

    def add(self, rows: Rows) -> None:
        """Store rows that are not there yet."""
        self._reserve(len(rows))
        self._count += len(rows)
        self._settle(rows)

    def drop(self) -> None:
        """Free everything."""
        self._slots = np.zeros((1, WORDS), np.uint64)
        self._count = 0

    def _settle(self, rows: Rows) -> None:
        slots = self._home(rows)
        while len(rows):
            free = self._slots[slots, 0] == 0
            self._slots[slots[free]] = rows[free]  # of two rows that want one slot the later one gets it
            homeless = (self._slots[slots] != rows).any(axis=1)
            rows, slots = rows[homeless], self._next(slots[homeless])

    def _reserve(self, more: int) -> None:
        needed = self._count + more
        if needed <= len(self._slots) * _FULLEST:
            return
        old = self._slots
        self._slots = np.zeros((int(max(needed / _FULLEST, len(old) * _GROWTH)) + 1, WORDS), np.uint64)
        for begin in range(0, len(old), 65_536):  # in pieces: the copy of a whole table would double its memory
            piece = old[begin : begin + 65_536]
            self._settle(piece[piece[:, 0] != 0])

    def _home(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """Word 2 is uniform: its upper half, scaled to the capacity, is where a row belongs."""
        return ((rows[:, 2] >> np.uint64(32)) * np.uint64(len(self._slots))) >> np.uint64(32)

    def _next(self, slots: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        after: npt.NDArray[np.uint64] = slots + np.uint64(1)
        after[after == len(self._slots)] = 0
        return after
