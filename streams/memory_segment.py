"""A segment of the window in memory."""

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.window import WORDS, Rows, Words

Places = npt.NDArray[np.intp]  # shape (n,)
Tags = npt.NDArray[np.uint16]  # shape (n,)

_SLOTS = 8  # rows of a bucket
_FULLEST = 0.6  # rows per slot: more makes buckets overflow
_GROWTH = 1.6
_PIECE_ROWS = 65_536


class MemorySegment:
    """A hash table of rows in two numpy arrays: 57 to 91 bytes an identity (34 a slot), freed whole.

    A bucket has eight slots: in one array a row's tag (16 bits of word 2, never 0; 0 is a free slot), in the other the
    rows themselves. The eight tags of a bucket are 16 bytes, so a look costs one line of the processor's cache, and a
    row is looked at only when its tag agrees. Slots fill in order; a full bucket overflows into the next.
    All rows of a call are looked up together: a dozen array operations for the whole batch.
    """

    def __init__(self, rows: int = 500) -> None:
        """Allocate room for so many rows to begin with."""
        self._allocate(rows)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._tags.nbytes + self._rows.nbytes

    def find(self, rows: Rows) -> Words:
        """Return the content (word 3) stored for each row's identity; 0 where there is none. Shape (n,)."""
        found = np.zeros(len(rows), np.uint64)
        tags, buckets, asking = _tags_of(rows), self._home(rows), np.arange(len(rows))
        while len(asking):
            slots = self._tags.take(buckets, axis=0)
            hit, slot = np.nonzero(slots == tags[:, None])
            if len(hit):
                stored, wanted = self._rows.take(buckets[hit] * _SLOTS + slot, axis=0), rows[asking[hit]]
                same = (stored[:, :3] == wanted[:, :3]).all(axis=1)
                found[asking[hit[same]]] = stored[same, 3]
            further = np.flatnonzero(slots[:, -1])  # the last slot is taken: the row may have gone on
            asking, tags, buckets = asking[further], tags[further], self._next(buckets[further])
        return found

    def add(self, rows: Rows, _stream_time_us: int = 0, _changelog_offset: int = -1, /) -> None:
        """Store rows that are not there yet."""
        self._reserve(len(rows))
        self._count += len(rows)
        self._settle(rows)

    def seal(self) -> None:
        """Do nothing: nothing will be added any more."""

    def close(self) -> None:
        """Free everything."""
        self._allocate(0)
        self._count = 0

    drop = close

    def _settle(self, rows: Rows) -> None:
        tags, buckets = _tags_of(rows), self._home(rows)
        while len(rows):
            order = np.argsort(buckets, kind="stable")
            rows, tags, buckets = rows[order], tags[order], buckets[order]
            taken = np.count_nonzero(self._tags.take(buckets, axis=0), axis=1)
            slot = taken + _rank(buckets)
            fits = slot < _SLOTS
            self._tags[buckets[fits], slot[fits]] = tags[fits]
            self._rows[buckets[fits] * _SLOTS + slot[fits]] = rows[fits]
            rows, tags, buckets = rows[~fits], tags[~fits], self._next(buckets[~fits])

    def _reserve(self, more: int) -> None:
        needed = self._count + more
        if needed <= self._tags.size * _FULLEST:
            return
        old_tags, old_rows = self._tags.reshape(-1), self._rows
        self._allocate(int(max(needed, self._count * _GROWTH)))
        for begin in range(
            0, len(old_rows), _PIECE_ROWS
        ):  # in pieces: the copy of a whole table would double its memory
            piece = slice(begin, begin + _PIECE_ROWS)
            self._settle(old_rows[piece][old_tags[piece] != 0])

    def _allocate(self, rows: int) -> None:
        buckets = int(rows / _FULLEST) // _SLOTS + 1
        self._tags: Tags = _zeros((buckets, _SLOTS), np.uint16)
        self._rows: Rows = _zeros((buckets * _SLOTS, WORDS), np.uint64)

    def _home(self, rows: Rows) -> Places:
        """Return each row's bucket: the upper half of word 2, which is uniform, scaled to the number of buckets."""
        homes = ((rows[:, 2] >> np.uint64(32)) * np.uint64(len(self._tags))) >> np.uint64(32)
        return homes.astype(np.intp)

    def _next(self, buckets: Places) -> Places:
        return (buckets + 1) % len(self._tags)


def _zeros(shape: tuple[int, int], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return an array whose memory goes back to the system with it.

    Malloc keeps what is freed in the middle of its heap, and that is where arrays of some megabytes lie.
    """
    pages = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(shape)


def _tags_of(rows: Rows) -> Tags:
    return (rows[:, 2] | np.uint64(1)).astype(np.uint16)


def _rank(ordered: Places) -> Places:
    """Return the rank of each element within its run of equal values, from 0; `ordered` must be sorted."""
    places = np.arange(len(ordered))
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    return places - np.repeat(begins, np.diff(begins, append=len(ordered)))
