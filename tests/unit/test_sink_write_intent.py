"""An intent survives in a commit's metadata, and its tokens say which records they are for."""

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from sinks.write_intent import METADATA_MAX_BYTES, Part, Row, WriteIntent, found
from tests.unit.sink_doubles import record

EVENTS = TP("telematics.events.v1", 3)

parts = st.builds(lambda first, length: (first, first + length), st.integers(0, 2**62), st.integers(1, 2**20))


@given(st.dictionaries(st.integers(0, 1023), parts, max_size=20), parts)
def test_an_intent_is_read_back_as_it_was_committed(others: dict[int, tuple[int, int]], own: tuple[int, int]) -> None:
    """Offset and metadata of any of its partitions' commits are the intent."""
    intent = WriteIntent(EVENTS.topic, tuple(Part(p, *at) for p, at in sorted((others | {3: own}).items())))
    for part in intent.parts:
        assert found(TP(EVENTS.topic, part.partition), part.first, intent.metadata) == intent


def test_a_hundred_partitions_fit_into_the_metadata() -> None:
    """With offsets of eleven digits."""
    intent = WriteIntent(EVENTS.topic, tuple(Part(p, 12_345_678_901, 12_345_698_901) for p in range(100)))
    assert len(intent.metadata) < METADATA_MAX_BYTES


def test_a_finished_batch_leaves_no_intent() -> None:
    """A commit without metadata means that everything below the offset is stored."""
    assert found(EVENTS, 17, "") is None


@pytest.mark.parametrize(
    "metadata", ["hello", "insert:", "insert:3=18-20,4=1-2", "insert:4=17-20,5=1-2", "insert-to:x"]
)
def test_a_stranger_s_metadata_is_refused(metadata: str) -> None:
    """Another program with this consumer group would be guessed at, and rows doubled."""
    with pytest.raises(ValueError, match=f"has metadata that is not a write intent: '{metadata}'"):
        found(EVENTS, 17, metadata)


def test_tokens_name_topic_partition_and_range() -> None:
    """No two inserts share a token: neither of other partitions nor of other ranges nor the pieces of one."""
    intent = WriteIntent(EVENTS.topic, (Part(3, 10, 20),))
    assert intent.token == "telematics.events.v1:3:10-20"
    assert intent.token_of([Row(3, record(10)), Row(3, record(14))]) == "telematics.events.v1:3:10-20/10-14"


def test_tokens_of_several_partitions_differ_in_each_part() -> None:
    """One partition more, one offset more, another piece: another token."""
    intent = WriteIntent(EVENTS.topic, (Part(3, 10, 20), Part(4, 0, 5)))
    others = [
        WriteIntent(EVENTS.topic, (Part(3, 10, 20), Part(4, 0, 6))),
        WriteIntent(EVENTS.topic, (Part(3, 10, 20), Part(4, 0, 5), Part(5, 0, 5))),
        WriteIntent(EVENTS.topic, (Part(3, 10, 20), Part(5, 0, 5))),
        WriteIntent("telematics.dead-letter.v1", intent.parts),
    ]
    pieces = [intent.token_of([Row(3, record(10)), Row(4, record(at))]) for at in (3, 4)]
    tokens = [intent.token, *(other.token for other in others), *pieces]
    assert len(set(tokens)) == len(tokens)
