"""Reconciliation arithmetic: what adds up, and which discrepancies are named if it does not."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from eventpush.reconciliation import arithmetic
from eventpush.reconciliation.arithmetic import Chunk, Discrepancy
from schemas.account import BatchAccount, Count


def batch(first: int, next_: int, *, unique: int | None = None, duplicate: int = 0, dead: int = 0) -> BatchAccount:
    """Return a summary in which everything neither duplicate nor dead is unique."""
    unique = next_ - first - duplicate - dead if unique is None else unique
    counts = [Count("2026-11-24T00:10Z", "sos", unique, duplicate, dead)]
    return BatchAccount(0, first, next_, "2026-11-24T00:10:30.000000Z", counts)


def coverage(*batches: BatchAccount, begin: int = 0, end: int = 30, complete: bool = True) -> arithmetic.Coverage:
    return arithmetic.coverage(0, batches, begin, end, complete=complete)


def test_contiguous_batches_have_no_discrepancy() -> None:
    """Offsets after the last batch are in flight, which is not a discrepancy."""
    found = coverage(batch(10, 20, duplicate=3), batch(0, 10, dead=1))
    assert (found.discrepancies, found.in_flight, found.records) == ([], 10, 30)


def test_without_a_batch_all_is_in_flight() -> None:
    """Everything is in flight before the stream stage has ever run."""
    found = coverage(begin=5)
    assert (found.discrepancies, found.in_flight, found.records) == ([], 25, 25)


def test_a_gap_is_named() -> None:
    """Offsets that no batch covers are missing, also at the very beginning."""
    assert coverage(batch(0, 10), batch(15, 30)).discrepancies == [Discrepancy(0, 10, 15, 5, "in no batch")]
    assert coverage(batch(4, 30)).discrepancies == [Discrepancy(0, 0, 4, 4, "in no batch")]


def test_expired_summaries_are_no_gap() -> None:
    """After summaries or raw records have expired, reconciliation begins with the first one left."""
    assert coverage(batch(4, 30), complete=False).discrepancies == []
    found = coverage(batch(0, 10), batch(10, 30), begin=12)
    assert (found.discrepancies, found.first) == ([], 0)


def test_an_overlap_is_named() -> None:
    """Offsets in two batches are too many: a negative discrepancy."""
    assert coverage(batch(0, 20), batch(15, 30)).discrepancies == [Discrepancy(0, 15, 20, -5, "in two batches")]
    assert coverage(batch(0, 30), batch(5, 9)).discrepancies == [Discrepancy(0, 5, 9, -4, "in two batches")]


def test_a_miscounted_batch_is_named() -> None:
    """A batch with fewer outcomes than records is named."""
    (discrepancy,) = coverage(batch(0, 30, unique=28)).discrepancies
    assert (discrepancy.first, discrepancy.next, discrepancy.events) == (0, 30, 2)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.data())
def test_any_single_batch_that_is_left_out_is_found(sizes: list[int], data: st.DataObject) -> None:
    """Whichever summary is missing, exactly its range is named, or is in flight if it is the last."""
    bounds = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    batches = [batch(first, next_) for first, next_ in itertools.pairwise(bounds)]
    out = data.draw(st.integers(0, len(batches) - 1))
    lost = batches[out]
    found = coverage(*batches[:out], *batches[out + 1 :], end=bounds[-1])
    if out == len(batches) - 1:
        assert (found.discrepancies, found.in_flight) == ([], sizes[-1])
    else:
        expected = Discrepancy(0, lost.first_offset, lost.next_offset, sizes[out], "in no batch")
        assert found.discrepancies == [expected]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=1_000))
def test_chunks_lose_nothing(sizes: list[int]) -> None:
    """At most 200 contiguous chunks cover any number of batches, with the same sums."""
    bounds = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    chunks = arithmetic.chunks(0, [batch(a, b, dead=1) for a, b in itertools.pairwise(bounds)])
    assert len(chunks) <= 200
    assert [chunk.first for chunk in chunks[1:]] == [chunk.next for chunk in chunks[:-1]]
    assert sum(chunk.unique + chunk.dead_lettered for chunk in chunks) == sum(sizes)


def test_a_chunk_with_other_rows_than_expected_is_looked_at() -> None:
    """Fewer, more or no rows are a mismatch."""
    chunks = [Chunk(0, 0, 10, 9, 1), Chunk(0, 10, 20, 10, 0), Chunk(0, 20, 30, 5, 5)]
    rows = {(0, 0): 9, (0, 10): 11}
    assert [chunk.first for chunk in arithmetic.mismatched(chunks, rows, dead_letters=False)] == [10, 20]
    assert [chunk.first for chunk in arithmetic.mismatched(chunks, {(0, 0): 1}, dead_letters=True)] == [20]


def test_lost_offsets_are_named_as_ranges() -> None:
    """Nearby offsets share a range, distant ones do not; the number of events is exact."""
    found = arithmetic.group_offsets(3, [500, 7, 9, 8, 60], "missing")
    assert found == [Discrepancy(3, 7, 61, 4, "missing"), Discrepancy(3, 500, 501, 1, "missing")]


def test_lines_add_up_by_minute_type_and_in_all() -> None:
    """ClickHouse's counts join the summaries' by minute and type, and add up."""
    counts = [Count("00:10", "sos", 3, 1, 0), Count("00:11", "sos", 2, 0, 1), Count("00:11", "", 0, 0, 4)]
    batches = [BatchAccount(0, 0, 11, "", counts)]
    outcomes = arithmetic.count_outcomes(
        batches, {("00:10", "sos"): 3, ("00:11", "sos"): 2}, {("00:11", "sos"): 1, ("00:11", ""): 4}
    )
    assert arithmetic.aggregate(outcomes, arithmetic.BY["type"])["sos"] == arithmetic.OutcomeCounts(7, 5, 1, 1, 5, 1)
    assert arithmetic.aggregate(outcomes, arithmetic.BY["minute"])["00:11"].accepted == 7
    assert arithmetic.aggregate(outcomes, arithmetic.BY["both"])["00:11 sos"].accepted == 3
    total = arithmetic.aggregate(outcomes, arithmetic.BY["all"])["all"]
    assert total.accepted == total.stored + total.duplicate + total.stored_dead_letters == 11


def test_replays_are_counted_apart() -> None:
    """Accepted is what senders sent: with the replayed ones it is the sum of the outcomes."""
    summary = BatchAccount(0, 0, 6, "", [Count("00:10", "sos", 3, 2, 1, replayed=2)])
    assert coverage(summary, end=6).discrepancies == []
    (counts,) = arithmetic.count_outcomes([summary], {}, {}).values()
    assert (counts.accepted, counts.replayed) == (4, 2)
    assert counts.accepted + counts.replayed == counts.unique + counts.duplicate + counts.dead_lettered
