"""What a worker's transactions hold, when one begins, and who is told of a refusal."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from runtime.adapters.aiokafka_transactions import GroupMember, RefusedMemberError
from runtime.kafka.record_format import Records, records_of
from runtime.platform.settings import load
from streams import transactions as module
from streams.transactions import Commit, Transactions

RECORD = records_of([(b"a key", b"a value", 0)])
MEGABYTE = records_of([(b"", b"." * 2**20, 0)])
CURRENT, FORMER = GroupMember.made("group", 5, "me"), GroupMember.made("group", 4, "me")


class FakeProducer:
    """A producer that notes what each transaction holds and how it ends."""

    def __init__(self, **_: Any) -> None:
        self.client = SimpleNamespace(set_topics=self._known)
        self.ended: list[tuple[str, dict[int, int]]] = []  # the end, and the next offset by partition
        self.refuses: list[GroupMember] = []
        self.offsets: dict[int, int] = {}
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    async def _known(self, _topics: set[str]) -> None: ...

    async def begin_transaction(self) -> None:
        self.offsets = {}

    async def send_batch(self, _batch: Any, _topic: str, *, partition: int) -> "asyncio.Future[Any]":
        delivered = asyncio.get_running_loop().create_future()
        delivered.set_result(SimpleNamespace(offset=10 + partition))
        return delivered

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, Any], member: GroupMember) -> None:
        self.offsets = {tp.partition: at.offset for tp, at in offsets.items()}
        if any(member is refused for refused in self.refuses):
            raise RefusedMemberError("generation is over")

    async def commit_transaction(self) -> None:
        await self.may_commit.wait()
        self.ended.append(("commit", self.offsets))

    async def abort_transaction(self) -> None:
        self.ended.append(("abort", self.offsets))


class Worker:
    """The transactions of a worker with `in_progress` batches."""

    def __init__(self, in_progress: int) -> None:
        self.in_progress = in_progress
        settings = load({"EVENTPUSH_STREAMS_LINGER_MS": "10000", "EVENTPUSH_TRANSACTION_TIMEOUT_S": "5"})
        self.transactions = Transactions(settings, lambda: self.in_progress)
        self.producer: Any = vars(self.transactions)["_producer"]

    def commit(
        self, partition: int, member: GroupMember = CURRENT, records: Records = RECORD
    ) -> Coroutine[Any, Any, dict[str, int]]:
        source = TopicPartition("raw", partition)
        return self.transactions.commit(Commit(source, {"events": records}, 100 + partition, member))


@pytest.fixture(autouse=True)
def _fake_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AIOKafkaProducer", FakeProducer)


async def test_all_batches_in_progress_are_one_transaction() -> None:
    """The transaction begins when the last of them comes, long before the linger; each gets its own base offsets."""
    worker = Worker(in_progress=3)
    first = [asyncio.create_task(worker.commit(partition)) for partition in (0, 1)]
    await asyncio.sleep(0.02)
    assert worker.producer.ended == []
    assert await worker.commit(2) == {"events": 12}
    assert await asyncio.gather(*first) == [{"events": 10}, {"events": 11}]
    assert worker.producer.ended == [("commit", {0: 100, 1: 101, 2: 102})]


async def test_what_comes_during_a_transaction_is_the_next() -> None:
    """One transaction at a time: the next begins when the last has committed."""
    worker = Worker(in_progress=1)
    worker.producer.may_commit.clear()
    first = asyncio.create_task(worker.commit(0))
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(worker.commit(partition)) for partition in (1, 2)]
    await asyncio.sleep(0.01)
    worker.producer.may_commit.set()
    await asyncio.gather(first, *later)
    assert worker.producer.ended == [("commit", {0: 100}), ("commit", {1: 101, 2: 102})]


async def test_enough_waits_for_nothing_and_is_a_bound() -> None:
    """A backlog of large batches begins a transaction at once, which takes what is enough and leaves the rest."""
    worker = Worker(in_progress=64)
    waiting = [asyncio.create_task(worker.commit(partition, records=MEGABYTE)) for partition in range(20)]
    await asyncio.gather(*waiting[:16])
    assert [len(offsets) for _, offsets in worker.producer.ended] == [8, 8]
    worker.in_progress = 4
    await asyncio.gather(*waiting[16:])


async def test_a_former_generation_does_not_join() -> None:
    """What waits since before a rebalance is refused by itself; the rest is committed."""
    worker = Worker(in_progress=2)
    outcomes = await asyncio.gather(worker.commit(0, FORMER), worker.commit(1), return_exceptions=True)
    assert isinstance(outcomes[0], RefusedMemberError)
    assert outcomes[1] == {"events": 11}
    assert worker.producer.ended == [("commit", {1: 101})]


async def test_a_refusal_is_everybodys_and_the_next_goes_through() -> None:
    """The whole transaction is aborted, every partition in it learns why, and the same outcomes may be committed."""
    worker = Worker(in_progress=2)
    worker.producer.refuses = [FORMER]
    outcomes = await asyncio.gather(worker.commit(0, FORMER), worker.commit(1, FORMER), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RefusedMemberError, RefusedMemberError]
    await asyncio.gather(worker.commit(0), worker.commit(1))
    assert worker.producer.ended == [("abort", {0: 100, 1: 101}), ("commit", {0: 100, 1: 101})]


async def test_a_lost_partition_is_taken_out() -> None:
    """A task that is cancelled while its outcome waits commits nothing."""
    worker = Worker(in_progress=2)
    lost = asyncio.create_task(worker.commit(0))
    await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    worker.in_progress = 1
    await worker.commit(1)
    assert worker.producer.ended == [("commit", {1: 101})]
