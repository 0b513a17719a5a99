"""A commit counts only while the partition is ours, and where we left it."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalGenerationError, OffsetMetadataTooLargeError, RequestTimedOutError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP

from runtime.consumer.offset_committer import Committed, FencedError, OffsetCommitter

TOPIC_PARTITION = TopicPartition("telematics.events.v1", 3)


@dataclass
class FakeGroup:
    """A broker's group and this member's view of it, with the few things of aiokafka that the committer uses."""

    generation: int = 7  # as this member knows it
    group_id: str = "a-group"
    member_id: str = "this-member"
    broker_generation: int = 7
    stored: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    reassignment_in_progress: bool = False
    ours: bool = True
    failures: list[Exception] = field(default_factory=list)

    def assigned_partitions(self) -> set[TopicPartition]:
        return {TOPIC_PARTITION} if self.ours else set()

    async def ensure_coordinator_known(self) -> None: ...

    async def fetch_committed_offsets(self, _partitions: Any) -> dict[TopicPartition, OffsetAndMetadata]:
        return dict(self.stored)

    async def _do_commit_offsets(self, _assignment: Any, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if self.failures:
            raise self.failures.pop()
        if self.generation != self.broker_generation:
            raise IllegalGenerationError("group")
        self.stored.update(offsets)

    def other_worker_commits(self, offset: int) -> None:
        self.stored[TOPIC_PARTITION] = OffsetAndMetadata(offset, "")

    def rebalanced(self) -> None:
        self.generation = self.broker_generation = self.broker_generation + 1


@pytest.fixture
def group() -> FakeGroup:
    return FakeGroup()


@pytest.fixture
async def committer(group: FakeGroup) -> OffsetCommitter:
    return committer_of(group, rebalance_timeout_s=30)


@pytest.fixture
async def impatient(group: FakeGroup) -> OffsetCommitter:
    """A committer that soon gives up waiting for an assignment."""
    return committer_of(group, rebalance_timeout_s=0.2)


def committer_of(group: FakeGroup, rebalance_timeout_s: float) -> OffsetCommitter:
    consumer = SimpleNamespace(_coordinator=group, _subscription=group)
    app: Any = SimpleNamespace(with_consumer=lambda function: function(consumer))
    return OffsetCommitter(app, TP(*TOPIC_PARTITION), rebalance_timeout_s=rebalance_timeout_s)


async def test_offset_and_metadata_are_read_back(committer: OffsetCommitter) -> None:
    """A partition begins at 0; what is committed is what is read."""
    assert await committer.read() == Committed(0, "")
    await committer.commit(5, "insert-to:9")
    assert await committer.read() == Committed(5, "insert-to:9")


async def test_a_commit_survives_a_rebalance_that_left_the_partition_here(
    committer: OffsetCommitter, group: FakeGroup
) -> None:
    """A batch may be under way over a rebalance: if no other worker wrote, it goes on."""
    await committer.read()
    await committer.commit(5, "insert-to:9")
    group.rebalanced()
    await committer.commit(9)
    assert group.stored[TOPIC_PARTITION].offset == 9


async def test_a_commit_is_refused_when_another_worker_has_written(
    committer: OffsetCommitter, group: FakeGroup
) -> None:
    """The partition was elsewhere and came back: what was decided before must not move the offset back."""
    await committer.read()
    await committer.commit(5, "insert-to:9")
    group.rebalanced()
    group.other_worker_commits(20)
    group.rebalanced()
    with pytest.raises(FencedError, match="is now at"):
        await committer.commit(9)
    assert group.stored[TOPIC_PARTITION].offset == 20


async def test_a_zombie_is_fenced(impatient: OffsetCommitter, group: FakeGroup) -> None:
    """The broker has a newer generation and the partition another owner: the commit fails, nothing is written."""
    await impatient.read()
    await impatient.commit(5, "insert-to:9")
    group.broker_generation += 1
    group.ours = False
    with pytest.raises(FencedError, match="is no longer assigned to this worker"):
        await impatient.commit(9)
    assert group.stored[TOPIC_PARTITION].offset == 5


async def test_a_member_that_was_thrown_out_does_not_commit(impatient: OffsetCommitter, group: FakeGroup) -> None:
    """Without a generation Kafka would take the commit of anybody, if the group happens to be empty."""
    await impatient.read()
    group.generation = -1
    group.reassignment_in_progress = True
    with pytest.raises(FencedError):
        await impatient.commit(9)
    assert TOPIC_PARTITION not in group.stored


async def test_a_new_generation_counts_only_once_the_partition_is_assigned_in_it(
    committer: OffsetCommitter, group: FakeGroup
) -> None:
    """Between the new generation and the new assignment the partition's owner is unknown."""
    await committer.read()
    group.rebalanced()
    group.reassignment_in_progress = True
    commit = asyncio.create_task(committer.commit(9))
    await asyncio.sleep(0.06)
    assert TOPIC_PARTITION not in group.stored
    group.reassignment_in_progress = False
    await commit
    assert group.stored[TOPIC_PARTITION].offset == 9


async def test_a_lost_answer_is_no_conflict(committer: OffsetCommitter, group: FakeGroup) -> None:
    """The commit arrived, its answer did not, and a rebalance followed: what stands there is our own."""
    await committer.read()
    group.other_worker_commits(9)
    group.rebalanced()
    await committer.commit(9)
    assert committer.committed == Committed(9, "")


async def test_a_broker_that_is_slow_is_asked_again(committer: OffsetCommitter, group: FakeGroup) -> None:
    """Retriable errors are retried, others are not hidden."""
    await committer.read()
    group.failures = [RequestTimedOutError()]
    await committer.commit(9)
    group.failures = [OffsetMetadataTooLargeError()]
    with pytest.raises(OffsetMetadataTooLargeError):
        await committer.commit(10)
