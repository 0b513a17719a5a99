"""What one fetch hands on: records as they were parsed, complete from a known offset."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from runtime.adapters import faust as faust_adapter
from runtime.adapters.aiokafka import as_parsed, install, require_installed
from runtime.adapters.faust import BatchConsumer, _DaemonThread
from runtime.consumer.batch import Batch

RAW = TopicPartition("raw", 1)

install()


class State:
    """aiokafka's state of a partition."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.paused = False

    def consumed_to(self, position: int) -> None:
        self.position = position


class Records:
    """A fetch's records: offsets with records, up to where the fetch went."""

    _value_deserializer = staticmethod(as_parsed)

    def __init__(self, begin: int, offsets: list[int], end: int, value: bytes = b"") -> None:
        self.next_fetch_offset = begin
        self._records = self._unpack(offsets, end, value)

    def _unpack(self, offsets: list[int], end: int, value: bytes) -> Iterator[Any]:
        for offset in offsets:
            self.next_fetch_offset = offset + 1
            yield SimpleNamespace(offset=offset, value=value)
        self.next_fetch_offset = end

    def __iter__(self) -> Iterator[Any]:
        return self._records

    def __next__(self) -> Any:
        return next(self._records)


def fetched(state: State, begin: int, offsets: list[int], end: int, value: bytes = b"") -> Any:
    """A fetch that began at `begin`."""
    assignment, records = SimpleNamespace(active=True, state_value=lambda _: state), Records(begin, offsets, end, value)
    return fetcher.FetchResult(RAW, assignment=assignment, partition_records=records, backoff=0)


def test_a_fetch_says_from_where_it_is_complete() -> None:
    """Taken in pieces, each piece begins where the one before it ended; markers belong to the piece after them."""
    state = State(5)
    result = fetched(state, 5, [6, 7, 8, 10], 12)
    first, second = result.getall(3), result.getall(3)
    assert [r.offset for r in first] == [6, 7, 8]
    assert (first.from_offset, second.from_offset) == (5, 9)
    assert state.position == 12
    assert not result.has_more()


def test_fetches_without_records_are_counted_by_the_next_one() -> None:
    """Aborted transactions fill whole fetches: what follows is complete from before them, except after a seek."""
    state = State(5)
    assert fetched(state, 5, [], 50).getall(10) == []
    assert fetched(state, 50, [], 90).getall(10) == []
    assert fetched(state, 90, [91], 92).getall(10).from_offset == 5
    assert fetched(state, 92, [], 100).getall(10) == []
    state.position = 200
    assert fetched(state, 200, [200], 201).getall(10).from_offset == 200


def test_a_fetch_hands_on_no_more_than_fits() -> None:
    """However many large records a compressed fetch holds, they come in pieces of about 16 MiB, none left out."""
    state = State(0)
    result = fetched(state, 0, list(range(100)), 100, bytes(2**20))
    pieces = []
    while result.has_more():
        pieces.append(result.getall(1_000))
    assert [len(piece) for piece in pieces] == [17, 17, 17, 17, 17, 15]
    assert [record.offset for piece in pieces for record in piece] == list(range(100))
    assert [piece.from_offset for piece in pieces] == [0, 17, 34, 51, 68, 85]


def test_the_part_of_a_batch_from_an_offset_on() -> None:
    """It is complete from that offset on; there is none when no record is left."""
    records: list[Any] = [SimpleNamespace(offset=n) for n in (6, 8)]
    batch = Batch(TP("raw", 1), records, 1, 5)
    assert batch.beginning_at(4) is batch
    for offset, offsets in ((6, [6, 8]), (7, [8])):
        part = batch.beginning_at(offset)
        assert part is not None
        assert (part.from_offset, [r.offset for r in part.records]) == (offset, offsets)
    assert batch.beginning_at(9) is None


async def test_nothing_is_handed_on_before_a_rebalance_is_over() -> None:
    """Faust opens the flow, and then empties the queues once more: a batch in one of them would never be released."""
    handed_on: list[Any] = []

    async def callback(message: Any) -> None:
        handed_on.append(message.value)

    async def wait_first(coroutine: Any, *_: Any) -> None:
        await coroutine

    async def fetch(*_: Any) -> dict[TP, Any]:
        return {}

    tp = TP("raw", 1)
    app = SimpleNamespace(rebalancing=True, consumer_generation_id=3)
    consumer: Any = SimpleNamespace(
        app=app, flow_active=True, suspend_flow=SimpleNamespace(wait=lambda: None), callback=callback,
        wait_first=wait_first, on_buffer_full=lambda _: None, _read_offset={}, _get_active_partitions=lambda: {tp},
        _buffered_partitions=set(), _released=asyncio.Event(), _fetch=fetch,
    )  # fmt: skip
    consumer._wait_for_busy = partial(BatchConsumer._wait_for_busy, consumer)
    record: Any = SimpleNamespace(offset=6, timestamp=0)
    batch = Batch(tp, [record], 3, 5)
    assert await BatchConsumer._next_records(consumer) == ({}, set())
    await BatchConsumer._deliver(consumer, tp, batch)
    assert handed_on == []
    app.rebalancing = False
    assert await BatchConsumer._next_records(consumer) == ({}, {tp})
    await BatchConsumer._deliver(consumer, tp, batch)
    assert handed_on == [batch]


class Busy(SimpleNamespace):
    """A consumer with a batch of two partitions in progress."""

    def __init__(self) -> None:
        super().__init__(_buffered_partitions={TP("raw", 0), TP("raw", 1)}, _released=asyncio.Event())

    def on_buffer_drop(self, tp: TP) -> None:
        self._buffered_partitions.discard(tp)


async def test_partitions_that_are_released_together_are_fetched_from_together() -> None:
    """The loop waits for the last of them, and no longer."""
    busy: Any = Busy()
    waiting = asyncio.create_task(BatchConsumer._wait_for_busy(busy))
    await asyncio.sleep(0)
    BatchConsumer.resume(busy, TP("raw", 0))
    await asyncio.sleep(0.005)
    assert not waiting.done()
    BatchConsumer.resume(busy, TP("raw", 1))
    await waiting


async def test_a_partition_that_stays_busy_does_not_keep_the_others() -> None:
    """One that is being restored holds its batch for minutes: the loop goes on without it."""
    busy: Any = Busy()
    await asyncio.wait_for(BatchConsumer._wait_for_busy(busy), 10)
    assert len(busy._buffered_partitions) == 2


async def test_faust_logs_nothing_about_a_healthy_consumer_however_long_it_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust's check expects fetch times that our path does not keep; an hour after the start it still says nothing."""
    tp = TP("raw", 1)
    started_s, log = time.monotonic(), logging.getLogger("faust")
    state = SimpleNamespace(timestamp=None, highwater=5, position=5)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    subscriptions = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    aiokafka_consumer = SimpleNamespace(_fetcher=SimpleNamespace(_subscriptions=subscriptions))
    thread: Any = object.__new__(driver.AIOKafkaConsumerThread)
    thread.time_started, thread.tp_fetch_request_timeout_secs, thread.log = started_s - 3_600, 300, log
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_ensure_consumer", lambda _: aiokafka_consumer)

    async def sleep(_: float) -> None: ...

    def consumer_of(cls: type) -> Any:
        consumer = SimpleNamespace(_thread=thread, assignment=lambda: {tp}, sleep=sleep, should_stop=False)
        consumer.verify_event_path = lambda now, tp: cls.verify_event_path(consumer, now, tp)  # type: ignore[attr-defined]
        return consumer

    await driver.Consumer.verify_all_partitions_active(consumer_of(driver.Consumer))
    assert "has not sent" in caplog.text  # the check that ours replaces does complain
    caplog.clear()
    await driver.Consumer.verify_all_partitions_active(consumer_of(BatchConsumer))
    assert not caplog.records


def test_a_consumer_without_the_patch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the call that is missing; installing twice changes nothing."""
    patched = fetcher.FetchResult
    install()
    assert fetcher.FetchResult is patched
    monkeypatch.setattr(fetcher, "FetchResult", patched.__mro__[1])
    with pytest.raises(RuntimeError, match=r"call runtime\.adapters\.aiokafka\.install\(\)"):
        require_installed()


def test_a_thread_that_does_not_end_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer's thread may wait for a task that cannot be cancelled: whoever stops it goes on after a while."""
    monkeypatch.setattr(faust_adapter, "_THREAD_STOP_S", 0.01)
    stopping = threading.Thread(target=_DaemonThread(None).stop, daemon=True)
    stopping.start()
    stopping.join(10)
    assert not stopping.is_alive()
