"""Where keys go among more partitions, and the window's rows with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventpush.growth.routing import Growth, partitions_of_imeis, route_rows
from ingress.batching import partition_of
from streams.window import Rows, identity_rows, payload_rows

growths = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda pair: Growth(pair[0], pair[0] + pair[1]))
imeis = st.integers(1, 10**15 - 1)


@given(st.lists(imeis, min_size=1, max_size=20), st.integers(1, 1_024))
def test_an_imeis_partition_is_the_one_the_ingress_chooses(numbers: list[int], partitions: int) -> None:
    """The hash of many IMEIs at once is the hash of each one's 15 digits."""
    found = partitions_of_imeis(np.array(numbers, np.uint64), partitions)
    assert found.tolist() == [partition_of(b"%015d" % number, partitions) for number in numbers]


@given(st.binary(min_size=1, max_size=40), growths)
def test_a_key_of_a_partition_goes_to_one_of_its_candidates(key: bytes, growth: Growth) -> None:
    """Whatever the key is, its new partition is among those that its old one names."""
    assert partition_of(key, growth.after) in growth.candidates(partition_of(key, growth.before))


def test_growing_by_a_factor_leaves_few_candidates() -> None:
    """From 4 to 12, a partition's keys go to three; from 4 to 7, they can go anywhere."""
    assert list(Growth(4, 12).candidates(3)) == [3, 7, 11]
    assert list(Growth(4, 7).candidates(3)) == list(range(7))


def rows_of(numbers: list[int]) -> Rows:
    digests = [number.to_bytes(8, "little") * 2 for number in numbers]
    return identity_rows(numbers, np.arange(len(numbers), dtype=np.int64), digests, np.ones(len(numbers), np.uint64))


@given(st.lists(imeis, max_size=30), st.lists(st.binary(min_size=24, max_size=24), max_size=5), growths, st.data())
def test_rows_go_where_their_repeats_will_come(
    numbers: list[int], digests: list[bytes], growth: Growth, data: st.DataObject
) -> None:
    """A row of an event is in its IMEI's partition and nowhere else; one of other bytes is in all candidates."""
    source = data.draw(st.integers(0, growth.before - 1))
    rows = np.concatenate([rows_of(numbers), payload_rows(digests)])
    parts = route_rows(rows, source, growth)
    for row, number in zip(rows, numbers, strict=False):
        assert [t for t, part in parts.items() if (part == row).all(axis=1).any()] == [
            partition_of(b"%015d" % number, growth.after)
        ]
    for row in rows[len(numbers) :]:
        assert sorted(t for t, part in parts.items() if (part == row).all(axis=1).any()) == list(
            growth.candidates(source)
        )
    routed = len(numbers) + len(digests) * len(growth.candidates(source))
    assert sum(map(len, parts.values())) == routed


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_are_routed_too(count: int) -> None:
    """None and one row are no special case."""
    assert sum(map(len, route_rows(rows_of([350612075195931] * count), 0, Growth(4, 12)).values())) == count
