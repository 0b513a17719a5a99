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
    records: list[Any] = [SimpleNamespace(offset=n, timestamp=n) for n in range(first, last + 1)]
    return Batch(tp, records, 1, first if complete_from is None else complete_from)


class Recorder:
    """A processor that remembers what it was asked."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.opened = self.closed = 0
        self.seen: list[int] = []
        self.released = asyncio.Event()
        self.released.set()

    async def open(self) -> int:
        self.opened += 1
        return self.start

    async def process(self, work: Batch) -> None:
        await self.released.wait()
        self.seen += [record.offset for record in work.records]
        self.start = work.next_offset

    async def close(self) -> None:
        self.closed += 1


class Harness:
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
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 0, 3))
    harness.tasks.submit(batch(ONE, 2, 5))
    harness.tasks.submit(batch(ONE, 4, 5))
    await harness.until_released(3)
    assert harness.recorders[ONE].seen == [0, 1, 2, 3, 4, 5]
    await harness.tasks.close()


async def test_a_partition_that_stays_keeps_its_state() -> None:
    """A rebalance that leaves a partition here does not open it again; a lost one is closed."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE, TWO})
    harness.tasks.submit(batch(ONE, 0, 3))
    await harness.until_released(1)
    await harness.tasks.on_revoked()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 4, 5))
    await harness.until_released(2)
    assert (harness.recorders[ONE].opened, harness.recorders[ONE].closed, harness.recorders[TWO].closed) == (1, 0, 1)
    await harness.tasks.close()


async def test_a_partition_that_was_away_is_reopened() -> None:
    """When the first batch after a rebalance begins later than the task stopped, its state is restored afresh."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 0, 3))
    await harness.until_released(1)
    await harness.tasks.on_revoked()
    await harness.tasks.on_assigned({ONE})
    harness.recorders[ONE].start = 10  # another worker got this far meanwhile
    harness.tasks.submit(batch(ONE, 8, 11))
    await harness.until_released(2)
    assert harness.recorders[ONE].seen == [0, 1, 2, 3, 10, 11]
    assert harness.recorders[ONE].opened == 2
    await harness.tasks.close()


async def test_a_hole_after_a_rebalance_is_fetched_again() -> None:
    """A batch that a rebalance swallowed is fetched again, not passed over; so found by the soak, 13 events long."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 0, 3))
    await harness.until_released(1)
    await harness.tasks.on_revoked()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 2, 3))  # was fetched before; 4 to 6 came after it and were dropped
    harness.tasks.submit(batch(ONE, 7, 9))
    await harness.until_released(3)
    assert harness.rewound == [(ONE, 4)]
    harness.tasks.submit(batch(ONE, 4, 9))
    await harness.until_released(4)
    assert harness.recorders[ONE].seen == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    await harness.tasks.close()


async def test_a_hole_before_the_first_batch_is_fetched_again() -> None:
    """Also a task that was just opened begins where its partition was committed."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 3, 4))
    await harness.until_released(1)
    harness.tasks.submit(batch(ONE, 0, 4))
    await harness.until_released(2)
    assert harness.rewound == [(ONE, 0)]
    assert harness.recorders[ONE].seen == [0, 1, 2, 3, 4]
    await harness.tasks.close()


async def test_offsets_without_records_are_no_hole() -> None:
    """Where a transaction's marker stands there is no record: a batch says from where on it is complete."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 1, 2, complete_from=0))
    harness.tasks.submit(batch(ONE, 4, 5, complete_from=3))
    await harness.until_released(2)
    assert harness.recorders[ONE].seen == [1, 2, 4, 5]
    assert harness.rewound == []
    await harness.tasks.close()


async def test_what_retention_has_deleted_holds_nothing_up() -> None:
    """Records that are gone from the topic cannot be fetched again: the task goes on with the earliest there is."""
    harness = Harness()
    harness.earliest = 10
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 10, 11))
    await harness.until_released(1)
    assert harness.recorders[ONE].seen == [10, 11]
    await harness.tasks.close()


async def test_what_waits_is_dropped_when_a_rebalance_begins() -> None:
    """Only the batch under way is finished; the others are fetched again by their owner."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    await asyncio.sleep(0)
    harness.recorders[ONE].released.clear()
    harness.tasks.submit(batch(ONE, 0, 1))
    await asyncio.sleep(0)
    harness.tasks.submit(batch(ONE, 2, 3))
    await harness.tasks.on_revoked()
    harness.recorders[ONE].released.set()
    await harness.until_released(2)
    assert harness.recorders[ONE].seen == [0, 1]
    await harness.tasks.close()


async def test_what_is_assigned_while_the_worker_ends_is_left_alone() -> None:
    """A rebalance that comes during a stop opens nothing that would stay open."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    await harness.tasks.close()
    await harness.tasks.on_assigned({ONE, TWO})
    assert harness.tasks.open == {}


async def test_a_failure_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that fails ends the worker; nothing goes on after it."""
    harness = Harness()
    harness.recorders[ONE] = recorder = Recorder()

    async def fail(_: Batch) -> None:
        raise RuntimeError("fenced")

    monkeypatch.setattr(recorder, "process", fail)
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 0, 1))
    await harness.until_released(1)
    await asyncio.sleep(0)
    assert [str(error) for error in harness.failures] == ["fenced"]
    await harness.tasks.close()


async def test_a_rebalance_while_a_lane_opens_anew_is_not_forgotten() -> None:
    """A second rebalance comes while the partition's state is being restored: its hole is fetched again, too."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 0, 3))
    await harness.until_released(1)
    await harness.tasks.on_revoked()
    await harness.tasks.on_assigned({ONE})
    recorder = harness.recorders[ONE]
    opening, may_open = asyncio.Event(), asyncio.Event()

    async def open_slowly() -> int:
        opening.set()
        await may_open.wait()
        return recorder.start

    recorder.open = open_slowly  # type: ignore[method-assign]
    harness.tasks.submit(batch(ONE, 7, 9))  # 4 to 6 were swallowed by the first rebalance
    await opening.wait()
    await harness.tasks.on_revoked()
    await harness.tasks.on_assigned({ONE})
    may_open.set()
    await harness.until_released(2)
    harness.tasks.submit(batch(ONE, 10, 12))  # what the seek fetched, 4 to 9, was swallowed by the second
    await harness.until_released(3)
    assert recorder.seen == [0, 1, 2, 3]
    assert harness.rewound[-1] == (ONE, 4)
    harness.tasks.submit(batch(ONE, 4, 12))
    await harness.until_released(4)
    assert recorder.seen == list(range(13))
    await harness.tasks.close()


async def test_a_batch_fetched_before_a_seek_is_not_taken_for_one_after_it() -> None:
    """A second batch that waits behind the one with the hole in front is dropped with it."""
    harness = Harness()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 0, 3))
    await harness.until_released(1)
    await harness.tasks.on_revoked()
    await harness.tasks.on_assigned({ONE})
    harness.tasks.submit(batch(ONE, 7, 9))  # 4 to 6 were dropped
    harness.tasks.submit(batch(ONE, 10, 12))  # fetched while the batch before it was still under way
    await harness.until_released(3)
    assert harness.recorders[ONE].seen == [0, 1, 2, 3]
    assert harness.rewound[0] == (ONE, 4)
    harness.tasks.submit(batch(ONE, 4, 12))
    await harness.until_released(4)
    assert harness.recorders[ONE].seen == list(range(13))
    await harness.tasks.close()
