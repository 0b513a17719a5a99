"""The deduplication window: memory and disk keep the same contract."""

import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.disk_segment import DiskSegment, forget_window, window_on_disk
from streams.memory_segment import MemorySegment
from streams.partition_processor import advance
from streams.state_restore import decode, encode, merge_by_segment
from streams.window import DeduplicationWindow, DedupResult, Rows, Segment, identity_rows, payload_rows
from tests.identities import random_rows

HOUR_US = 3_600_000_000
U, D, C = DedupResult.UNIQUE, DedupResult.DUPLICATE, DedupResult.CONFLICT


def rows(*identities: tuple[int, int]) -> Rows:
    """Rows of made-up identities, each with a content."""
    digests = [blake2b(number.to_bytes(8, "little"), digest_size=16).digest() for number, _ in identities]
    numbers = [number for number, _ in identities]
    contents = np.array([content for _, content in identities], np.uint64)
    return identity_rows(numbers, np.array(numbers, np.int64), digests, contents)


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[int], Segment]:
    """Both kinds of segment."""
    if request.param == "memory":
        return lambda _: MemorySegment()
    return lambda segment_number: DiskSegment(tmp_path / str(segment_number))


def test_first_is_unique_then_duplicate_or_conflict(make: Callable[[int], Segment]) -> None:
    """The same identity and content is a duplicate, other content a conflict, in one batch and across batches."""
    window = DeduplicationWindow(4 * HOUR_US, make)
    batch = rows((1, 5), (2, 5), (1, 5), (1, 6))
    assert window.classify(batch).tolist() == [U, U, D, C]
    window.add(batch[:2], 0)
    assert window.classify(rows((3, 5), (2, 5), (2, 7), (1, 5))).tolist() == [U, D, C, D]


def test_classifying_changes_nothing(make: Callable[[int], Segment]) -> None:
    """A batch that is processed and not committed is processed the same again."""
    window = DeduplicationWindow(4 * HOUR_US, make)
    assert window.classify(rows((1, 5))).tolist() == window.classify(rows((1, 5))).tolist() == [U]


def test_no_edge_between_spans(make: Callable[[int], Segment]) -> None:
    """A duplicate is caught on both sides of every segment's edge, up to the retention."""
    window = DeduplicationWindow(4 * HOUR_US, make)
    window.add(rows((1, 5)), HOUR_US - 1)
    for later_us in (HOUR_US - 1, HOUR_US, 2 * HOUR_US, 5 * HOUR_US - 1):
        window.advance(later_us)
        assert window.classify(rows((1, 5))).tolist() == [D]


def test_expiry_frees_memory_also_of_recovered_rows(make: Callable[[int], Segment]) -> None:
    """Past the retention and one segment an identity is forgotten and its segment freed, however it got there."""
    window = DeduplicationWindow(4 * HOUR_US, make)
    changelog = encode(rows(*((n, 1) for n in range(1, 5001))), 0)
    window.add(*decode(changelog))
    assert len(window) == 5000
    window.advance(5 * HOUR_US)
    assert len(window) == 0
    assert window.classify(rows((1, 1))).tolist() == [U]


def test_a_window_on_disk_is_kept(tmp_path: Path) -> None:
    """What was closed, or left as a killed process leaves it, is there again: rows, count, and how far it goes."""
    window = window_on_disk(tmp_path / "window", 4 * HOUR_US)
    window.add(rows((1, 5), (2, 5)), HOUR_US // 2, 17)
    window.add(rows((3, 5)), 3 * HOUR_US // 2, 19)
    shutil.copytree(tmp_path / "window", tmp_path / "killed", ignore=shutil.ignore_patterns("LOCK"))
    window.close()
    for directory in ("window", "killed"):
        again = window_on_disk(tmp_path / directory, 4 * HOUR_US)
        assert (len(again), again.stream_time_us, again.changelog_offset) == (3, 3 * HOUR_US // 2, 19)
        assert again.classify(rows((1, 5), (2, 6), (3, 5), (4, 5))).tolist() == [D, C, D, U]
        again.close()


def test_a_window_on_disk_lets_go(tmp_path: Path) -> None:
    """What is past the retention goes from the disk, and everything when the retention is another one."""
    window = window_on_disk(tmp_path, 4 * HOUR_US)
    window.add(rows((1, 5)), 0)
    window.add(rows((2, 5)), 5 * HOUR_US)
    window.close()
    assert [path.name for path in tmp_path.glob("*/*")] == ["5"]
    window_on_disk(tmp_path, 8 * HOUR_US).close()
    assert not list(tmp_path.glob("*/*"))


def test_a_window_in_use_is_not_opened(tmp_path: Path) -> None:
    """Two owners do not write into one directory; the second may wait until the first one has closed it."""
    window = window_on_disk(tmp_path, 4 * HOUR_US)
    window.add(rows((1, 5)), 0)
    window.add(rows((2, 5)), HOUR_US)
    with pytest.raises(Exception, match="lock"):
        window_on_disk(tmp_path, 4 * HOUR_US)
    window.close()
    window_on_disk(tmp_path, 4 * HOUR_US).close()


def test_a_window_that_is_being_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it removes a window, or while it begins one of another retention, a worker leaves none behind."""
    window = window_on_disk(tmp_path, 4 * HOUR_US)
    window.add(rows((1, 5)), 0, 17)
    window.close()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    forget_window(tmp_path)
    again = window_on_disk(tmp_path, 4 * HOUR_US)
    assert (len(again), again.changelog_offset) == (0, -1)
    again.add(rows((1, 5)), 0, 17)
    again.close()
    window_on_disk(tmp_path, 8 * HOUR_US).close()
    back = window_on_disk(tmp_path, 4 * HOUR_US)
    assert (len(back), back.changelog_offset) == (0, -1)
    back.close()


def test_many_small_records_are_restored_together() -> None:
    """Records of one segment are one addition, segments stay apart, and nothing is remembered longer than alone."""
    records = [(rows((n, 1)), n * HOUR_US // 10, 2 * n) for n in range(1, 21)]
    additions = list(merge_by_segment(records, HOUR_US))
    assert [(len(added), *position) for added, *position in additions] == [
        (9, 9 * HOUR_US // 10, 18),
        (10, 19 * HOUR_US // 10, 38),
        (1, 2 * HOUR_US, 40),
    ]
    window = DeduplicationWindow(4 * HOUR_US, lambda _: MemorySegment())
    for added, time_us, offset in additions:
        window.add(added, time_us, offset)
    assert len(window) == 20
    assert window.classify(rows(*((n, 1) for n in range(1, 21)))).tolist() == [D] * 20


def test_time_does_not_go_back() -> None:
    """A clock that steps back lets nothing expire and nothing be forgotten."""
    window = DeduplicationWindow(4 * HOUR_US, lambda _: MemorySegment())
    window.add(rows((1, 5)), 10 * HOUR_US)
    window.add(rows((2, 5)), 2 * HOUR_US)
    window.advance(0)
    assert window.stream_time_us == 10 * HOUR_US
    assert window.classify(rows((1, 5))).tolist() == [D]


def test_a_clock_that_jumps_ahead_does_not_carry_stream_time_along() -> None:
    """Stream time moves with arrivals, but never beyond now by a clock that cannot jump, and never back."""
    day_us = 24 * HOUR_US
    assert advance(day_us, day_us + 30 * HOUR_US, day_us + 1_000_000) == day_us + 61_000_000
    assert advance(day_us, day_us + 1_000_000, day_us + HOUR_US) == day_us + 1_000_000
    assert advance(day_us, 5, day_us) == day_us
    assert advance(0, day_us, day_us) == day_us


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3)), max_size=200), st.integers(1, 20))
def test_batches_do_not_matter(identities: list[tuple[int, int]], size: int) -> None:
    """However arrivals are cut into batches, the results are those of processing one by one against a dictionary."""
    window = DeduplicationWindow(4 * HOUR_US, lambda _: MemorySegment(16))
    known: dict[int, int] = {}
    for begin in range(0, len(identities), size):
        batch = rows(*identities[begin : begin + size])
        results = window.classify(batch)
        expected = []
        for number, content in identities[begin : begin + size]:
            first = known.setdefault(number, -content)
            expected.append(U if first == -content and first < 0 else D if abs(first) == content else C)
            known[number] = abs(first)
        assert results.tolist() == expected
        window.add(batch[results == U], 0)


def test_growth_loses_nothing() -> None:
    """A table that has grown many times finds every row, and needs less than 120 bytes for each."""
    segment = MemorySegment(16)
    everything = random_rows(np.random.default_rng(7), 200_000)
    for begin in range(0, len(everything), 7_000):
        segment.add(everything[begin : begin + 7_000])
    assert (segment.find(everything) == everything[:, 3]).all()
    assert segment.nbytes / len(everything) < 120


def test_identities_are_compared_exactly() -> None:
    """Rows that differ in IMEI or time alone are different identities even with the same digest."""
    digest = b"x" * 16
    batch = identity_rows([1, 2, 1], np.array([10, 10, 11]), [digest] * 3, np.ones(3, np.uint64))
    assert DeduplicationWindow(HOUR_US, lambda _: MemorySegment()).classify(batch).tolist() == [U, U, U]


def test_payloads_do_not_meet_events() -> None:
    """Bytes that are no event never look like an identity."""
    window = DeduplicationWindow(HOUR_US, lambda _: MemorySegment())
    window.add(rows((1, 1)), 0)
    assert window.classify(payload_rows([b"\0" * 24])).tolist() == [U]
