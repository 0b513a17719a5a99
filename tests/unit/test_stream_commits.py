"""What a partition does with an outcome when a rebalance is faster than its transaction."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from runtime.adapters.aiokafka_transactions import RefusedMemberError
from runtime.consumer.offset_committer import FencedError
from runtime.kafka.record_format import records_of
from runtime.platform.settings import load
from streams.partition_processor import PartitionProcessor
from streams.transactions import BaseOffsets, Commit

SOURCE = TopicPartition("telematics.raw.v1", 0)
OUTPUTS = {"events": records_of([(b"a key", b"a value", 0)])}


class FakeGroup:
    """The group's offset of one partition, and a member that always owns it."""

    group_id, member_id = "streams", "me"
    reassignment_in_progress = False

    def __init__(self) -> None:
        self.generation = 5
        self.stored = 0, ""

    def assigned_partitions(self) -> set[TopicPartition]:
        return {SOURCE}

    async def ensure_coordinator_known(self) -> None: ...

    async def _send_req(self, _request: Any) -> Any:
        offset, metadata = self.stored
        return SimpleNamespace(error_code=0, topics=[(SOURCE.topic, [(0, offset, -1, metadata, 0, {})], {})])


class FakeTransactions:
    """Transactions that a coordinator of generation 6 takes or refuses."""

    id = "this-worker"

    def __init__(self, group: FakeGroup) -> None:
        self._group = group
        self.members: list[tuple[int, str]] = []

    async def commit(self, commit: Commit) -> BaseOffsets:
        self.members.append(commit.member.joined)
        if commit.member.generation != 6:
            asyncio.get_running_loop().call_later(0.05, setattr, self._group, "generation", 6)  # it hears of it later
            raise RefusedMemberError("generation is over")
        self._group.stored = commit.next_offset, self.id
        return {"events": 1}


class Partition:
    """A partition that was left at offset 7 in generation 5, which is over."""

    def __init__(self) -> None:
        self.group = FakeGroup()
        self.transactions = FakeTransactions(self.group)
        consumer = SimpleNamespace(_coordinator=self.group, _subscription=self.group)
        app: Any = SimpleNamespace(aiokafka_consumer=consumer, with_consumer=lambda function: function(consumer))
        unused = [None] * 4
        parts: list[Any] = [load({}), app, None, self.transactions, None, TP(*SOURCE), *unused]
        self._processor = PartitionProcessor(*parts)
        self.committer: Any = vars(self._processor)["_committer"]

    async def left_at_7(self) -> None:
        self.group.stored = 7, self.transactions.id
        await self.committer.read()

    async def commit(self) -> BaseOffsets:
        committed: BaseOffsets = await vars(PartitionProcessor)["_commit"](self._processor, OUTPUTS, 9)
        return committed


async def test_a_refused_outcome_is_committed_again() -> None:
    """When the partition is still as it was left, the same outcome goes into a transaction of the new generation."""
    partition = Partition()
    await partition.left_at_7()
    assert await partition.commit() == {"events": 1}
    assert partition.transactions.members == [(5, "me"), (6, "me")]
    assert (partition.committer.generation, partition.committer.committed) == (6, (9, "this-worker"))


async def test_a_known_rebalance_is_not_refused_first() -> None:
    """A generation that the consumer knows to be over is not tried."""
    partition = Partition()
    await partition.left_at_7()
    partition.group.generation = 6
    await partition.commit()
    assert partition.transactions.members == [(6, "me")]


@pytest.mark.parametrize("found", [(8, "another-worker"), (7, "another-worker")])
async def test_another_workers_partition_is_left_alone(found: tuple[int, str]) -> None:
    """Another owner's commit, or its claim alone, ends this one: its window may lack what that has processed."""
    partition = Partition()
    await partition.left_at_7()
    partition.group.stored = found
    with pytest.raises(FencedError):
        await partition.commit()
    assert partition.group.stored == found
