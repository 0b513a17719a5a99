"""The account's arithmetic: accepted = stored + duplicate + dead-lettered + in flight, or where it is not. Pure.

    raw offsets of a partition   ├──────── batches' ranges, end to end ────────┤── in flight ──┤
    of a batch's records         unique + duplicate + dead-lettered, nothing else
    of the unique and the dead   in ClickHouse, or in flight to it

Whatever breaks one of these lines is a `Remainder` with its partition and range of raw offsets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from schemas.account import BatchAccount

_CHUNKS_MAX = 200  # of a partition: as many numbers as ClickHouse is asked for at once


class Remainder(msgspec.Struct, frozen=True):
    """Raw offsets `first` ≤ offset < `next` of a partition whose account does not add up."""

    partition: int
    first: int
    next: int
    events: int  # how many are too few; negative: too many
    why: str

    def __str__(self) -> str:
        return f"partition {self.partition}, raw offsets {self.first} to {self.next - 1}: {self.events} {self.why}"


class Chunk(msgspec.Struct, frozen=True):
    """Adjoining batches taken together: what ClickHouse must hold of these raw offsets."""

    partition: int
    first: int
    next: int
    unique: int
    dead_lettered: int


class Line(msgspec.Struct):
    """The account of one minute and type, or of all."""

    accepted: int = 0
    unique: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    stored: int = 0  # in telematics.events
    stored_dead_letters: int = 0  # in telematics.dead_letters


class Coverage(msgspec.Struct, frozen=True):
    """What the batches of one partition cover of its raw offsets."""

    partition: int
    first: int
    next: int  # from here on in flight
    end: int
    remainders: list[Remainder]

    @property
    def accepted(self) -> int:
        """Raw records, as the offsets count them."""
        return self.end - self.first

    @property
    def in_flight(self) -> int:
        """Raw records that the stream stage has yet to judge."""
        return self.end - self.next


def coverage(
    partition: int, batches: Sequence[BatchAccount], raw_begin: int, raw_end: int, *, complete: bool
) -> Coverage:
    """Lays the batches of a partition end to end.

    `complete` says that no summary has expired yet, so that the first batch must begin where the raw records do.
    """
    ordered = sorted(batches, key=lambda batch: batch.first_offset)
    first = position = ordered[0].first_offset if ordered and not complete else raw_begin
    if ordered and ordered[0].first_offset < first:  # the raw records have expired, their account has not
        first = position = ordered[0].first_offset
    remainders = []
    for batch in ordered:
        if batch.first_offset > position:
            missing = batch.first_offset - position
            remainders.append(Remainder(partition, position, batch.first_offset, missing, "in no batch"))
        elif batch.first_offset < position:
            twice = min(position, batch.next_offset)
            twofold = batch.first_offset - twice
            remainders.append(Remainder(partition, batch.first_offset, twice, twofold, "in two batches"))
        counted = sum(count.unique + count.duplicate + count.dead_lettered for count in batch.counts)
        uncounted = batch.next_offset - batch.first_offset - counted
        if uncounted:
            why = "with no outcome in their batch's summary"
            remainders.append(Remainder(partition, batch.first_offset, batch.next_offset, uncounted, why))
        position = max(position, batch.next_offset)
    return Coverage(partition, first, position, max(raw_end, position), remainders)


def chunks(partition: int, batches: Sequence[BatchAccount]) -> list[Chunk]:
    """Merge the batches into at most 200 groups, each a range of raw offsets with its sums."""
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


def differing(expected: Iterable[Chunk], found: Mapping[tuple[int, int], int], *, dead_letters: bool) -> list[Chunk]:
    """Return the chunks whose count in `found` (by partition and first offset) differs from the expected one."""
    return [
        chunk
        for chunk in expected
        if found.get((chunk.partition, chunk.first), 0) != (chunk.dead_lettered if dead_letters else chunk.unique)
    ]


def grouped(partition: int, offsets: Iterable[int], why: str) -> list[Remainder]:
    """Single raw offsets as ranges; those less than a hundred apart share one."""
    remainders: list[Remainder] = []
    for offset in sorted(offsets):
        if remainders and offset - remainders[-1].next < 100:
            last = remainders.pop()
            remainders.append(Remainder(partition, last.first, offset + 1, last.events + 1, why))
        else:
            remainders.append(Remainder(partition, offset, offset + 1, 1, why))
    return remainders


Key = tuple[str, str]  # minute of arrival, event type

#: What lines can be added up by.
BY: dict[str, Callable[[Key], str]] = {
    "type": lambda key: key[1],
    "minute": lambda key: key[0],
    "both": " ".join,
    "all": lambda _key: "all",
}


def lines(batches: Iterable[BatchAccount], stored: Mapping[Key, int], dead: Mapping[Key, int]) -> dict[Key, Line]:
    """Build the account by minute of arrival and event type; `stored` and `dead` are ClickHouse's counts."""
    found: dict[Key, Line] = {}
    for batch in batches:
        for count in batch.counts:
            line = found.setdefault((count.minute, count.event), Line())
            line.accepted += count.unique + count.duplicate + count.dead_lettered
            line.unique += count.unique
            line.duplicate += count.duplicate
            line.dead_lettered += count.dead_lettered
    for key, line in found.items():
        line.stored, line.stored_dead_letters = stored.get(key, 0), dead.get(key, 0)
    return dict(sorted(found.items()))


def summed(found: Mapping[Key, Line], by: Callable[[Key], str]) -> dict[str, Line]:
    """Lines added up under the name that `by` gives to each, as `BY` has them."""
    sums: dict[str, Counter[str]] = {}
    for key, line in found.items():
        sums.setdefault(by(key), Counter()).update(msgspec.structs.asdict(line))
    return {name: Line(**counts) for name, counts in sums.items()}
