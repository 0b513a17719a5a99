"""Partition tasks: one partition's batches in order, state kept over a rebalance unless another task owned it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from runtime.consumer.batch import Batch
from runtime.consumer.partition_tasks import PartitionTasks

ONE, TWO = TP("raw", 1), TP("raw", 2)


def batch(tp: TP, first: int, last: int, complete_from: int | None = None) -> Batch:
    """A batch of the offsets from first to last."""
    records: list[Any] = [SimpleNamespace(offset=n) for n in range(first, last + 1)]
    return Batch(tp, records, 1, first if complete_from is None else complete_from)


class Recorder:
    """A processor that remembers what it was asked."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.opened = self.closed = 0
        self.seen: list[int] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def open(self) -> int:
        self.opened += 1
        return self.start

    async def process(self, work: Batch) -> None:
        await self.may_go_on.wait()
        self.seen += [record.offset for record in work.records]
        self.start = work.next_offset

    async def close(self) -> None:
        self.closed += 1


class Bench:
    """Partition tasks with recording processors."""

    def __init__(self) -> None:
        self.recorders: dict[TP, Recorder] = {}
        self.released: list[Batch] = []
        self.failures: list[BaseException] = []
        self.rewound: list[tuple[TP, int]] = []
        self.earliest = 0
        self.tasks = PartitionTasks(
            self.make, self.released.append, self.seek, self.failures.append, drain_timeout_s=0.05
        )

    async def seek(self, tp: TP, offset: int) -> int:
        self.rewound.append((tp, offset))
        return max(offset, self.earliest)

    def make(self, tp: TP) -> Recorder:
        return self.recorders.setdefault(tp, Recorder())

    async def until_released(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.released) < count:
                await asyncio.sleep(0)


async def test_a_batch_is_processed_once_and_released() -> None:
    """What was already processed of a redelivered batch is not processed again."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 0, 3))
    bench.tasks.submit(batch(ONE, 2, 5))
    bench.tasks.submit(batch(ONE, 4, 5))
    await bench.until_released(3)
    assert bench.recorders[ONE].seen == [0, 1, 2, 3, 4, 5]
    await bench.tasks.close()


async def test_a_partition_that_stays_keeps_its_state() -> None:
    """A rebalance that leaves a partition here does not open it again; a lost one is closed."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE, TWO})
    bench.tasks.submit(batch(ONE, 0, 3))
    await bench.until_released(1)
    await bench.tasks.on_revoked()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 4, 5))
    await bench.until_released(2)
    assert (bench.recorders[ONE].opened, bench.recorders[ONE].closed, bench.recorders[TWO].closed) == (1, 0, 1)
    await bench.tasks.close()


async def test_a_partition_that_was_away_is_reopened() -> None:
    """When the first batch after a rebalance begins later than the task stopped, its state is restored afresh."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 0, 3))
    await bench.until_released(1)
    await bench.tasks.on_revoked()
    await bench.tasks.on_assigned({ONE})
    bench.recorders[ONE].start = 10  # another worker got this far meanwhile
    bench.tasks.submit(batch(ONE, 8, 11))
    await bench.until_released(2)
    assert bench.recorders[ONE].seen == [0, 1, 2, 3, 10, 11]
    assert bench.recorders[ONE].opened == 2
    await bench.tasks.close()


async def test_a_hole_after_a_rebalance_is_fetched_again() -> None:
    """A batch that a rebalance swallowed is fetched again, not passed over; so found by the soak, 13 events long."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 0, 3))
    await bench.until_released(1)
    await bench.tasks.on_revoked()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 2, 3))  # was fetched before; 4 to 6 came after it and were dropped
    bench.tasks.submit(batch(ONE, 7, 9))
    await bench.until_released(3)
    assert bench.rewound == [(ONE, 4)]
    bench.tasks.submit(batch(ONE, 4, 9))
    await bench.until_released(4)
    assert bench.recorders[ONE].seen == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    await bench.tasks.close()


async def test_a_hole_before_the_first_batch_is_fetched_again() -> None:
    """Also a task that was just opened begins where its partition was committed."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 3, 4))
    await bench.until_released(1)
    bench.tasks.submit(batch(ONE, 0, 4))
    await bench.until_released(2)
    assert bench.rewound == [(ONE, 0)]
    assert bench.recorders[ONE].seen == [0, 1, 2, 3, 4]
    await bench.tasks.close()


async def test_offsets_without_records_are_no_hole() -> None:
    """Where a transaction's marker stands there is no record: a batch says from where on it is complete."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 1, 2, complete_from=0))
    bench.tasks.submit(batch(ONE, 4, 5, complete_from=3))
    await bench.until_released(2)
    assert bench.recorders[ONE].seen == [1, 2, 4, 5]
    assert bench.rewound == []
    await bench.tasks.close()


async def test_what_retention_has_deleted_holds_nothing_up() -> None:
    """Records that are gone from the topic cannot be fetched again: the task goes on with the earliest there is."""
    bench = Bench()
    bench.earliest = 10
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 10, 11))
    await bench.until_released(1)
    assert bench.recorders[ONE].seen == [10, 11]
    await bench.tasks.close()


async def test_what_waits_is_dropped_when_a_rebalance_begins() -> None:
    """Only the batch under way is finished; the others are fetched again by their owner."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    await asyncio.sleep(0)
    bench.recorders[ONE].may_go_on.clear()
    bench.tasks.submit(batch(ONE, 0, 1))
    await asyncio.sleep(0)
    bench.tasks.submit(batch(ONE, 2, 3))
    await bench.tasks.on_revoked()
    bench.recorders[ONE].may_go_on.set()
    await bench.until_released(2)
    assert bench.recorders[ONE].seen == [0, 1]
    await bench.tasks.close()


async def test_what_is_assigned_while_the_worker_ends_is_left_alone() -> None:
    """A rebalance that comes during a stop opens nothing that would stay open."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    await bench.tasks.close()
    await bench.tasks.on_assigned({ONE, TWO})
    assert bench.tasks.open == {}


async def test_a_failure_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that fails ends the worker; nothing goes on after it."""
    bench = Bench()
    bench.recorders[ONE] = recorder = Recorder()

    async def fail(_: Batch) -> None:
        raise RuntimeError("fenced")

    monkeypatch.setattr(recorder, "process", fail)
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 0, 1))
    await bench.until_released(1)
    await asyncio.sleep(0)
    assert [str(error) for error in bench.failures] == ["fenced"]
    await bench.tasks.close()


async def test_a_rebalance_while_a_lane_opens_anew_is_not_forgotten() -> None:
    """A second rebalance comes while the partition's state is being restored: its hole is fetched again, too."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 0, 3))
    await bench.until_released(1)
    await bench.tasks.on_revoked()
    await bench.tasks.on_assigned({ONE})
    recorder = bench.recorders[ONE]
    opening, may_open = asyncio.Event(), asyncio.Event()

    async def open_slowly() -> int:
        opening.set()
        await may_open.wait()
        return recorder.start

    recorder.open = open_slowly  # type: ignore[method-assign]
    bench.tasks.submit(batch(ONE, 7, 9))  # 4 to 6 were swallowed by the first rebalance
    await opening.wait()
    await bench.tasks.on_revoked()
    await bench.tasks.on_assigned({ONE})
    may_open.set()
    await bench.until_released(2)
    bench.tasks.submit(batch(ONE, 10, 12))  # what the seek fetched, 4 to 9, was swallowed by the second
    await bench.until_released(3)
    assert recorder.seen == [0, 1, 2, 3]
    assert bench.rewound[-1] == (ONE, 4)
    bench.tasks.submit(batch(ONE, 4, 12))
    await bench.until_released(4)
    assert recorder.seen == list(range(13))
    await bench.tasks.close()


async def test_a_batch_fetched_before_a_seek_is_not_taken_for_one_after_it() -> None:
    """A second batch that waits behind the one with the hole in front is dropped with it."""
    bench = Bench()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 0, 3))
    await bench.until_released(1)
    await bench.tasks.on_revoked()
    await bench.tasks.on_assigned({ONE})
    bench.tasks.submit(batch(ONE, 7, 9))  # 4 to 6 were dropped
    bench.tasks.submit(batch(ONE, 10, 12))  # fetched while the batch before it was still under way
    await bench.until_released(3)
    assert bench.recorders[ONE].seen == [0, 1, 2, 3]
    assert bench.rewound[0] == (ONE, 4)
    bench.tasks.submit(batch(ONE, 4, 12))
    await bench.until_released(4)
    assert bench.recorders[ONE].seen == list(range(13))
    await bench.tasks.close()
