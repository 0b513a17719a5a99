"""The deduplication window of one partition: which identities arrived within the retention, and with which content.

A row stands for one identity: four 64-bit words (32 bytes).

    word 0   1 bit set, 50 bits IMEI, 13 bits of the identity's digest     compared exactly
    word 1   Device_Time in µs                                             compared exactly
    word 2   64 bits of the digest: stands for Event and Geofence_Name, and spreads the rows over the table
    word 3   64 bits that stand for the content

So IMEI and Device_Time are compared as they are, and the two names by 77 bits of BLAKE2b.

The window is cut by arrival time into segments of a quarter of its retention. A lookup asks every live segment, so a
duplicate is found across the edge between two. A segment is dropped whole once all of it is older than the retention:
an identity is remembered for at least the retention and at most a quarter longer.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.column_types import Int64s

Rows = npt.NDArray[np.uint64]  # shape (n, 4)
Words = npt.NDArray[np.uint64]  # shape (n,)
DedupResults = npt.NDArray[np.uint8]  # shape (n,), values of DedupResult

WORDS = 4
ROW_BYTES = WORDS * 8
SEGMENTS_PER_RETENTION = 4


class DedupResult(IntEnum):
    """What the window says of one row."""

    UNIQUE = 0
    DUPLICATE = 1
    CONFLICT = 2


class Segment(Protocol):
    """The rows that arrived in one segment."""

    def find(self, rows: Rows) -> Words:
        """Return the content (word 3) stored for each row's identity; 0 where there is none. Shape (n,)."""

    def add(self, rows: Rows, stream_time_us: int, changelog_offset: int, /) -> None:
        """Store rows that are not there yet; what outlives its process notes how far it goes."""

    def seal(self) -> None:
        """Prepare for reading only: nothing will be added any more."""

    def close(self) -> None:
        """Free all memory; what is on disk stays."""

    def drop(self) -> None:
        """Free everything."""

    def __len__(self) -> int:
        """Return how many identities are stored."""


def identity_rows(imeis: Sequence[int], device_us: Int64s, digests: Sequence[bytes], contents: Words) -> Rows:
    """Return rows of valid events: IMEIs as numbers, 16-byte digests, contents of 64 bits (1 for 0)."""
    rows = np.empty((len(imeis), WORDS), np.uint64)
    halves = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    rows[:, 0] = (np.array(imeis, np.uint64) << np.uint64(13)) | (halves[:, 0] & np.uint64(0x1FFF)) | np.uint64(1 << 63)
    rows[:, 1] = device_us.view(np.uint64)
    rows[:, 2] = halves[:, 1]
    rows[:, 3] = np.maximum(contents, np.uint64(1))
    return rows


def imeis_of(rows: Rows) -> Words:
    """Return each row's IMEI as a number; 0 for bytes that are no event."""
    return (rows[:, 0] << np.uint64(1)) >> np.uint64(14)


def has_device(rows: Rows, imei: int) -> bool:
    """Return whether one of the rows is of this IMEI."""
    return bool((imeis_of(rows) == imei).any())


def content_words(columns: Sequence[Words]) -> Words:
    """Mix 64-bit columns, one a content field, into 64 bits an event: different contents collide with 2^-64."""
    mixed = _mix(columns[0])
    for column in columns[1:]:
        mixed = _mix(mixed ^ column)
    return mixed


def _mix(words: Words) -> Words:
    """Mix bits by SplitMix64's step (Steele, Lea and Flood, OOPSLA 2014): each depends on each bit of the word."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def payload_rows(digests: Sequence[bytes]) -> Rows:
    """Return rows of bytes that are no event: IMEI 0, the rest from their 24-byte digests."""
    rows = np.ones((len(digests), WORDS), np.uint64)
    thirds = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 3)
    rows[:, 0] = (thirds[:, 0] & np.uint64(0x1FFF)) | np.uint64(1 << 63)
    rows[:, 1] = thirds[:, 1]
    rows[:, 2] = thirds[:, 2]
    return rows


NO_ROWS = payload_rows([])


def segment_us_of(retention_us: int) -> int:
    """Return the length of a segment, in µs."""
    return max(1, retention_us // SEGMENTS_PER_RETENTION)


class DeduplicationWindow:
    """The segments of one partition, newest last."""

    def __init__(self, retention_us: int, make_segment: Callable[[int], Segment]) -> None:
        self.segment_us = segment_us_of(retention_us)
        self._make = make_segment
        self._segments: dict[int, Segment] = {}
        self.stream_time_us = 0
        #: Up to which record of the changelog, itself included, the window was filled when it was opened; -1: unknown.
        self.changelog_offset = -1

    def __len__(self) -> int:
        return sum(len(segment) for segment in self._segments.values())

    def classify(self, rows: Rows) -> DedupResults:
        """Return one result a row, in order; changes nothing. An earlier equal row may also be in `rows`."""
        known = np.zeros(len(rows), np.uint64)
        for segment in self._segments.values():
            known = np.where(known == 0, segment.find(rows), known)
        first = _first_of_each(rows)
        repeats = (known == 0) & (first != np.arange(len(rows)))
        known[repeats] = rows[first[repeats], 3]
        results = np.where(known == rows[:, 3], np.uint8(DedupResult.DUPLICATE), np.uint8(DedupResult.CONFLICT))
        results[known == 0] = DedupResult.UNIQUE
        return results

    def add(self, rows: Rows, stream_time_us: int, changelog_offset: int = -1) -> None:
        """Remember rows that were unique, as arrived at `stream_time_us`, and forget what is past the retention.

        `changelog_offset` is that of the record that holds the rows; -1 where it is not known.
        """
        self.advance(stream_time_us)
        segment_number = stream_time_us // self.segment_us
        if len(rows) and segment_number >= self.stream_time_us // self.segment_us - SEGMENTS_PER_RETENTION:
            self._segment(segment_number).add(rows, stream_time_us, changelog_offset)

    def advance(self, stream_time_us: int) -> None:
        """Let time pass (it never goes back) and drop the segments that are older than the retention as a whole."""
        self.stream_time_us = max(self.stream_time_us, stream_time_us)
        oldest = self.stream_time_us // self.segment_us - SEGMENTS_PER_RETENTION
        for segment_number in [segment_number for segment_number in self._segments if segment_number < oldest]:
            self._segments.pop(segment_number).drop()

    def adopt(self, segment_number: int, segment: Segment, stream_time_us: int, changelog_offset: int) -> None:
        """Take over a segment that was kept, filled up to this time and offset; they come oldest first."""
        self._segments[segment_number] = segment
        self.changelog_offset = changelog_offset
        self.advance(stream_time_us)

    def close(self) -> None:
        """Free all memory; what is on disk stays."""
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()

    def drop(self) -> None:
        """Free everything, and begin again."""
        for segment in self._segments.values():
            segment.drop()
        self._segments.clear()
        self.stream_time_us, self.changelog_offset = 0, -1

    def _segment(self, segment_number: int) -> Segment:
        segment = self._segments.get(segment_number)
        if segment is None:
            for older in self._segments.values():
                older.seal()
            segment = self._segments[segment_number] = self._make(segment_number)
        return segment


def _first_of_each(rows: Rows) -> npt.NDArray[np.intp]:
    """Return for each row the index of the first row of the same identity (mostly itself)."""
    order = np.argsort(rows[:, 2], kind="stable")  # equal rows stay in order of arrival
    ordered = rows[order, :3]
    differ = (ordered[1:] != ordered[:-1]).any(axis=1)
    if (differ & (ordered[1:, 2] == ordered[:-1, 2])).any():  # word 2 alone does not keep equal rows together
        order = np.lexsort((rows[:, 1], rows[:, 0], rows[:, 2]))
        ordered = rows[order, :3]
        differ = (ordered[1:] != ordered[:-1]).any(axis=1)
    begins = np.concatenate([np.ones(min(1, len(rows)), bool), differ])
    first = np.empty(len(rows), np.intp)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first
