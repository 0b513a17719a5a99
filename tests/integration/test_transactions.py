"""Transactions fenced by the consumer group, on a real broker: what a new owner may rely on."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.types import TP

from runtime.adapters import aiokafka
from runtime.adapters.aiokafka_transactions import (
    GroupMember,
    RefusedMemberError,
    TxnOffsetCommitRequest,
    UnstableOffsetError,
    high_watermarks,
    stable_offset,
)
from runtime.consumer.offset_committer import FencedError, OffsetCommitter
from runtime.kafka.record_format import records_of
from runtime.kafka.topic_admin import admin
from runtime.platform.settings import Settings, load
from streams.state_restore import reader
from streams.takeover import Fence, Takeover
from streams.transactions import Commit, Transactions

TIMEOUT_S = 240  # of transactions: long enough that what passes sooner did not wait for it
READY_S = 120  # the machine may be busy with other tests
RECORD = records_of([(b"a key", b"a value", 0)])
aiokafka.install()


@dataclass
class Group:
    """A consumer group of its own on a topic of one partition, and what its members start."""

    settings: Settings
    topic: str
    closing: AsyncExitStack
    fence: Fence = field(init=False)

    def __post_init__(self) -> None:
        self.fence = Fence(self.settings)

    @property
    def partition(self) -> TopicPartition:
        return TopicPartition(self.topic, 0)

    async def consumer(self, **options: Any) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap, group_id=self.settings.streams_app_id,
            enable_auto_commit=False, heartbeat_interval_ms=100, **options,
        )  # fmt: skip
        await consumer.start()
        self.closing.push_async_callback(consumer.stop)
        return consumer

    async def member(self) -> AIOKafkaConsumer:
        """A consumer that has joined."""
        consumer = await self.consumer()
        consumer.subscribe([self.topic])
        await until(lambda: GroupMember.of(consumer).generation > 0 and _is_settled(consumer))
        return consumer

    async def owner(self) -> "Owner":
        """A member with the partition, as a stream worker is: the group's only one."""
        consumer = await self.member()
        await until(lambda: self.partition in consumer.assignment())
        transactions = Transactions(self.settings, lambda: 1)
        await transactions.start()
        self.closing.push_async_callback(transactions.stop)
        app: Any = SimpleNamespace(with_consumer=lambda function: function(consumer), aiokafka_consumer=consumer)
        committer = OffsetCommitter(app, TP(*self.partition), rebalance_timeout_s=READY_S, fetch=stable_offset)
        takeover = Takeover(self.settings, app, committer, self.fence, transactions.id)
        return Owner(self, consumer, committer, takeover, transactions)

    async def producer(self, transactional_id: str) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap, transactional_id=transactional_id,
            transaction_timeout_ms=TIMEOUT_S * 1000,
        )  # fmt: skip
        await producer.start()
        self.closing.push_async_callback(producer.stop)
        return producer


@dataclass
class Owner:
    """A stream worker's parts for one partition."""

    group: Group
    consumer: AIOKafkaConsumer
    committer: OffsetCommitter
    takeover: Takeover
    transactions: Transactions

    async def commit(self, next_offset: int, member: GroupMember | None = None) -> None:
        """Commit one record and this offset in a transaction."""
        member = member or GroupMember.of(self.consumer)
        await self.transactions.commit(Commit(self.group.partition, {self.group.topic: RECORD}, next_offset, member))
        self.committer.follow(next_offset, self.transactions.id)

    async def take_over(self) -> int:
        """Open the partition as its processor does."""
        offset = await self.takeover.committed_offset()
        async with reader(self.group.settings, self.group.partition) as consumer:
            await self.takeover.wait_for_ends(consumer, [self.group.partition])
        await self.takeover.claim(offset)
        return offset


def _is_settled(consumer: Any) -> bool:
    return bool(consumer.assignment()) or not consumer._subscription.reassignment_in_progress


async def until(true: Callable[[], bool], timeout_s: float = READY_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.02)


def _has_leader(described: Any) -> bool:
    [topic] = described
    return [partition["leader"] >= 0 for partition in topic["partitions"]] == [True]


@pytest.fixture
async def group(kafka_bootstrap: str) -> AsyncIterator[Group]:
    """A topic and a group that nothing else uses."""
    name = f"transactions.{uuid.uuid4()}"
    settings = load({
        "EVENTPUSH_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "EVENTPUSH_STREAMS_APP_ID": name,
        "EVENTPUSH_STREAMS_LINGER_MS": "5",
        "EVENTPUSH_TRANSACTION_TIMEOUT_S": str(TIMEOUT_S),
    })  # fmt: skip
    async with admin(settings) as client:
        await client.create_topics([NewTopic(name, 1, 1)])
        async with asyncio.timeout(READY_S):
            while not _has_leader(await client.describe_topics([name])):  # the broker has answered before
                await asyncio.sleep(0.02)
    async with AsyncExitStack() as closing:
        yield Group(settings, name, closing)


async def _open_transaction(producer: AIOKafkaProducer, group: Group) -> None:
    await producer.begin_transaction()
    await producer.send_and_wait(group.topic, b"not committed", partition=0)


async def _values(consumer: AIOKafkaConsumer, group: Group) -> list[bytes | None]:
    """What readers see from the beginning."""
    consumer.seek(group.partition, 0)
    return [record.value for record in (await consumer.getmany(timeout_ms=READY_S * 1000))[group.partition]]


async def _settled_offset(consumer: AIOKafkaConsumer, group: Group) -> OffsetAndMetadata | None:
    """The group's offset once it is stable: the broker writes a transaction's end after it has answered the commit."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                return await stable_offset(consumer, group.partition)
            except UnstableOffsetError:
                await asyncio.sleep(0.02)


async def test_offsets_join_the_transaction_of_a_member(group: Group) -> None:
    """The offset and its metadata are those of the last committed transaction; before the first there is none."""
    owner = await group.owner()
    assert await stable_offset(owner.consumer, group.partition) is None
    await owner.commit(7)
    await owner.commit(9)
    assert await _settled_offset(owner.consumer, group) == OffsetAndMetadata(9, owner.transactions.id)


async def test_an_offset_in_doubt_is_not_answered(group: Group) -> None:
    """While a transaction with an offset is open, that offset is unstable; its commit makes it the group's."""
    consumer = await group.member()
    producer = await group.producer("pending")
    await _open_transaction(producer, group)
    await producer.send_offsets_to_transaction({group.partition: OffsetAndMetadata(3, "")}, GroupMember.of(consumer))
    with pytest.raises(UnstableOffsetError):
        await stable_offset(consumer, group.partition)
    await producer.commit_transaction()
    assert await _settled_offset(consumer, group) == OffsetAndMetadata(3, "")


async def test_a_member_left_behind_is_refused_and_leaves_nothing(group: Group) -> None:
    """The offsets of an earlier generation or of an unknown member are refused; the transaction is aborted at once, so
    that readers do not wait for it, and the next one goes through.
    """
    owner = await group.owner()
    await owner.commit(1)
    left_behind = GroupMember.of(owner.consumer)
    await group.member()
    await until(lambda: GroupMember.of(owner.consumer).generation > left_behind.generation)
    current = GroupMember.of(owner.consumer)
    stranger = GroupMember.made(str(current), current.generation, "a stranger")
    for member in (left_behind, stranger):
        with pytest.raises(RefusedMemberError):
            await owner.commit(2, member)
    async with asyncio.timeout(TIMEOUT_S / 4), reader(group.settings, group.partition) as consumer:
        await owner.takeover.wait_for_ends(consumer, [group.partition])
        assert await _values(consumer, group) == [b"a value"]
    assert await _settled_offset(owner.consumer, group) == (1, owner.transactions.id)
    await owner.commit(2)
    assert await _settled_offset(owner.consumer, group) == (2, owner.transactions.id)


async def test_what_an_open_transaction_holds_back_is_waited_for(group: Group) -> None:
    """A frozen worker's open transaction hides what its successor has committed behind it. The next owner fences the
    worker named in the offset's metadata, long before the transaction's timeout, and sees everything.
    """
    owner = await group.owner()
    frozen = await group.producer("frozen")
    await owner.consumer.commit({group.partition: OffsetAndMetadata(1, "frozen")})
    await _open_transaction(frozen, group)
    behind = await group.producer("behind")
    await behind.begin_transaction()
    await behind.send_and_wait(group.topic, b"committed behind it", partition=0)
    await behind.commit_transaction()
    async with reader(group.settings, group.partition) as consumer:
        assert await consumer.end_offsets([group.partition]) == {group.partition: 0}
        assert (await high_watermarks(consumer, [group.partition]))[group.partition] >= 2
        began_s = time.monotonic()
        assert await owner.takeover.committed_offset() == 1
        await owner.takeover.wait_for_ends(consumer, [group.partition])
        assert time.monotonic() - began_s < TIMEOUT_S / 4
        assert await _values(consumer, group) == [b"committed behind it"]
    with pytest.raises(KafkaError):
        await frozen.commit_transaction()


async def test_the_owner_named_in_the_offset_is_fenced(group: Group) -> None:
    """A worker that was killed with its offsets in the open transaction delays its successor by a moment only, and its
    offset does not count; the successor's name is in the offset before its first transaction.
    """
    first = await group.owner()
    assert await first.take_over() == 0
    await first.commit(4)
    producer = await group.producer(first.transactions.id)  # the same id: its open transaction is what a kill leaves
    await _open_transaction(producer, group)
    await producer.send_offsets_to_transaction({group.partition: (8, "")}, GroupMember.of(first.consumer))
    await first.consumer.stop()
    second = await group.owner()
    began_s = time.monotonic()
    assert await second.take_over() == 4
    assert time.monotonic() - began_s < TIMEOUT_S / 4
    assert await stable_offset(second.consumer, group.partition) == (4, second.transactions.id)
    await second.commit(5)


async def test_an_offset_whose_transaction_lost_its_end_is_ended(group: Group) -> None:
    """A broker that was killed may forget that a transaction has ended, and nobody writes its end again: the next owner
    clears what the coordinator takes for pending, and goes on at the last offset that is certain.
    """
    first = await group.owner()
    await first.take_over()
    await first.commit(4)
    await _pending_without_transaction(group, first)
    with pytest.raises(UnstableOffsetError):
        await stable_offset(first.consumer, group.partition)
    await first.consumer.stop()
    second = await group.owner()
    async with asyncio.timeout(TIMEOUT_S / 4):
        assert await second.take_over() == 4
    assert await stable_offset(second.consumer, group.partition) == (4, second.transactions.id)
    await second.commit(5)


async def _pending_without_transaction(group: Group, owner: Owner) -> None:
    """Give the group's coordinator an offset of the owner's producer of which the transactions' knows nothing."""
    producer: Any = await group.producer(owner.transactions.id)
    ids = producer._txn_manager.producer_id, producer._txn_manager.producer_epoch
    offsets = {group.partition: OffsetAndMetadata(9, "")}
    request = TxnOffsetCommitRequest(owner.transactions.id, GroupMember.of(owner.consumer), ids, offsets)
    coordinator: Any = owner.consumer._coordinator
    async with admin(group.settings) as client:
        await client.alter_configs([_verification("false")])
        try:
            async with asyncio.timeout(READY_S):
                while (await coordinator._send_req(request)).topics[0][1][0][1]:  # the setting takes a moment
                    await asyncio.sleep(0.1)
        finally:
            await client.alter_configs([_verification("true")])


def _verification(value: str) -> ConfigResource:
    """The brokers' check that an offset belongs to a transaction, which is what a lost end passes by (KIP-890)."""
    name = "transaction.partition.verification.enable"
    return ConfigResource(ConfigResourceType.BROKER, "1", configs={name: value})


async def test_a_worker_of_the_release_before_is_fenced(group: Group) -> None:
    """Workers up to 0.1.0 commit without a generation, under a transactional id for each partition: after a takeover
    they can commit nothing, whether their transaction had begun or begins later.
    """
    old = await group.producer(f"{group.settings.streams_app_id}-0")
    await _open_transaction(old, group)
    await old.send_offsets_to_transaction({group.partition: (6, "")}, group.settings.streams_app_id)
    owner = await group.owner()
    assert await owner.take_over() == 0
    with pytest.raises(KafkaError):
        await old.commit_transaction()
    await owner.commit(1)


async def test_a_partition_that_was_elsewhere_is_not_continued(group: Group) -> None:
    """After a rebalance the offset must be as it was left, with this worker's id: another owner's claim is enough."""
    owner = await group.owner()
    await owner.take_over()
    await owner.commit(3)
    await owner.takeover.confirm()
    await owner.consumer.commit({group.partition: OffsetAndMetadata(3, "another worker")})
    with pytest.raises(FencedError):
        await owner.takeover.confirm()
