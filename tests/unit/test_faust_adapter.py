"""What one fetch hands on: records as they were parsed, complete from a known offset."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from faust.types import TP

from runtime.adapters.aiokafka import as_parsed
from runtime.adapters.faust import BatchConsumer
from runtime.consumer.batch import Batch

RAW = TopicPartition("raw", 1)


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
    batch = Batch(TP("raw", 1), [SimpleNamespace(offset=n) for n in (6, 8)], 1, 5)  # type: ignore[arg-type]
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
        _buffered_partitions=set(), _fetch=fetch,
    )  # fmt: skip
    batch = Batch(tp, [SimpleNamespace(offset=6, timestamp=0)], 3, 5)  # type: ignore[arg-type]
    assert await BatchConsumer._next_records(consumer) == ({}, set())
    await BatchConsumer._deliver(consumer, tp, batch)
    assert handed_on == []
    app.rebalancing = False
    assert await BatchConsumer._next_records(consumer) == ({}, {tp})
    await BatchConsumer._deliver(consumer, tp, batch)
    assert handed_on == [batch]
