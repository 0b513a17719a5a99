"""A intent survives in a commit's metadata, and its tokens say which records they are for."""

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from sinks.write_intent import WriteIntent, found
from tests.unit.sink_doubles import record

EVENTS = TP("telematics.events.v1", 3)


@given(st.integers(0, 2**62), st.integers(1, 2**20))
def test_a_plan_is_read_back_as_it_was_committed(first: int, length: int) -> None:
    """Offset and metadata of a commit together are the intent."""
    intent = WriteIntent(EVENTS, first, first + length)
    assert found(EVENTS, intent.first, intent.metadata) == intent


def test_a_finished_batch_leaves_no_plan() -> None:
    """A commit without metadata means that everything below the offset is stored."""
    assert found(EVENTS, 17, "") is None


def test_a_stranger_s_metadata_is_refused() -> None:
    """Another program with this consumer group would be guessed at, and rows doubled."""
    with pytest.raises(ValueError, match="has metadata that is not a write intent: 'hello'"):
        found(EVENTS, 17, "hello")


def test_tokens_name_topic_partition_and_range() -> None:
    """No two inserts share a token: neither of other partitions nor of other ranges nor the parts of one."""
    intent = WriteIntent(EVENTS, 10, 20)
    assert intent.token == "telematics.events.v1:3:10-20"
    assert intent.token_of([record(10), record(14)]) == "telematics.events.v1:3:10-20/10-14"
