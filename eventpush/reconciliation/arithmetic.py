"""Reconciliation arithmetic: accepted = stored + duplicate + dead-lettered + in flight, or a discrepancy. Pure.

Raw records that a replay sent are counted apart: accepted + replayed is on the left of the equation then.

    raw offsets of a partition   ├──────── batches' ranges, end to end ────────┤── in flight ──┤
    records of a batch           each is unique, duplicate or dead-lettered
    unique and dead-lettered     each is in ClickHouse, or in flight to it

A violation is a `Discrepancy` with its partition and range of raw offsets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from schemas.account import BatchAccount

_CHUNKS_MAX = 200  # per partition: ClickHouse returns one count for each


class Discrepancy(msgspec.Struct, frozen=True):
    """Raw offsets `first` ≤ offset < `next` of a partition whose events do not reconcile."""

    partition: int
    first: int
    next: int
    events: int  # missing events; negative if there are too many
    why: str

    def __str__(self) -> str:
        return f"partition {self.partition}, raw offsets {self.first} to {self.next - 1}: {self.events} {self.why}"


class Chunk(msgspec.Struct, frozen=True):
    """Adjacent batches combined: what ClickHouse must hold for these raw offsets."""

    partition: int
    first: int
    next: int
    unique: int
    dead_lettered: int


class OutcomeCounts(msgspec.Struct):
    """Events by outcome, for one minute and type or for several."""

    accepted: int = 0  # from senders
    unique: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    stored: int = 0  # in telematics.events
    stored_dead_letters: int = 0  # in telematics.dead_letters
    replayed: int = 0  # from replays
    erased: int = 0  # of erased devices, dropped by the stream stage


class Coverage(msgspec.Struct, frozen=True):
    """The raw offsets of one partition that its batches cover."""

    partition: int
    first: int
    next: int  # offsets from here on are in flight
    end: int
    discrepancies: list[Discrepancy]

    @property
    def records(self) -> int:
        """Raw records, counted by offset."""
        return self.end - self.first

    @property
    def in_flight(self) -> int:
        """Raw records that the stream stage has not processed yet."""
        return self.end - self.next


def coverage(
    partition: int, batches: Sequence[BatchAccount], raw_begin: int, raw_end: int, *, complete: bool
) -> Coverage:
    """Check that the batches of a partition cover its raw offsets without gap or overlap.

    `complete` means that no summary has expired, so the first batch must begin at the first raw offset.
    """
    ordered = sorted(batches, key=lambda batch: batch.first_offset)
    first = position = ordered[0].first_offset if ordered and not complete else raw_begin
    if ordered and ordered[0].first_offset < first:  # the raw records have expired, their summaries have not
        first = position = ordered[0].first_offset
    discrepancies = []
    for batch in ordered:
        if batch.first_offset > position:
            missing = batch.first_offset - position
            discrepancies.append(Discrepancy(partition, position, batch.first_offset, missing, "in no batch"))
        elif batch.first_offset < position:
            overlap_end = min(position, batch.next_offset)
            surplus = batch.first_offset - overlap_end
            discrepancies.append(Discrepancy(partition, batch.first_offset, overlap_end, surplus, "in two batches"))
        counted = sum(count.unique + count.duplicate + count.dead_lettered + count.erased for count in batch.counts)
        uncounted = batch.next_offset - batch.first_offset - counted
        if uncounted:
            why = "with no outcome in their batch's summary"
            discrepancies.append(Discrepancy(partition, batch.first_offset, batch.next_offset, uncounted, why))
        position = max(position, batch.next_offset)
    return Coverage(partition, first, position, max(raw_end, position), discrepancies)


def chunks(partition: int, batches: Sequence[BatchAccount]) -> list[Chunk]:
    """Combine the batches into at most 200 chunks, each a range of raw offsets with its sums."""
    ordered = sorted(batches, key=lambda batch: batch.first_offset)
    size = max(1, -(-len(ordered) // _CHUNKS_MAX))
    groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    return [
        Chunk(
            partition,
            group[0].first_offset,
            group[-1].next_offset,
            sum(count.unique for batch in group for count in batch.counts),
            sum(count.dead_lettered for batch in group for count in batch.counts),
        )
        for group in groups
    ]


def mismatched(expected: Iterable[Chunk], found: Mapping[tuple[int, int], int], *, dead_letters: bool) -> list[Chunk]:
    """Return the chunks whose number in `found` (by partition and first offset) is not the expected one."""
    return [
        chunk
        for chunk in expected
        if found.get((chunk.partition, chunk.first), 0) != (chunk.dead_lettered if dead_letters else chunk.unique)
    ]


def group_offsets(partition: int, offsets: Iterable[int], why: str) -> list[Discrepancy]:
    """Group raw offsets into ranges; offsets less than 100 apart share one."""
    discrepancies: list[Discrepancy] = []
    for offset in sorted(offsets):
        if discrepancies and offset - discrepancies[-1].next < 100:
            last = discrepancies.pop()
            discrepancies.append(Discrepancy(partition, last.first, offset + 1, last.events + 1, why))
        else:
            discrepancies.append(Discrepancy(partition, offset, offset + 1, 1, why))
    return discrepancies


MinuteAndType = tuple[str, str]  # minute of arrival, event type

#: Labels to aggregate by, by the value of `--by`.
BY: dict[str, Callable[[MinuteAndType], str]] = {
    "type": lambda key: key[1],
    "minute": lambda key: key[0],
    "both": " ".join,
    "all": lambda _key: "all",
}


def count_outcomes(
    batches: Iterable[BatchAccount], stored: Mapping[MinuteAndType, int], dead: Mapping[MinuteAndType, int]
) -> dict[MinuteAndType, OutcomeCounts]:
    """Count outcomes by minute of arrival and event type; `stored` and `dead` are ClickHouse's counts."""
    found: dict[MinuteAndType, OutcomeCounts] = {}
    for batch in batches:
        for count in batch.counts:
            total = found.setdefault((count.minute, count.event), OutcomeCounts())
            total.accepted += count.unique + count.duplicate + count.dead_lettered + count.erased - count.replayed
            total.erased += count.erased
            total.replayed += count.replayed
            total.unique += count.unique
            total.duplicate += count.duplicate
            total.dead_lettered += count.dead_lettered
    for key, total in found.items():
        total.stored, total.stored_dead_letters = stored.get(key, 0), dead.get(key, 0)
    return dict(sorted(found.items()))


def aggregate(
    found: Mapping[MinuteAndType, OutcomeCounts], by: Callable[[MinuteAndType], str]
) -> dict[str, OutcomeCounts]:
    """Sum the counts by the label that `by`, one of `BY`, returns for each."""
    sums: dict[str, Counter[str]] = {}
    for key, counts in found.items():
        sums.setdefault(by(key), Counter()).update(msgspec.structs.asdict(counts))
    return {label: OutcomeCounts(**summed) for label, summed in sums.items()}
