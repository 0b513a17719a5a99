"""The watchdog: lag without progress ends the worker, with a reason; anything else does not."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from runtime.consumer import watchdog
from runtime.consumer.complete_through import CompleteThrough
from runtime.consumer.watchdog import StallDetector, StalledError, Watchdog
from runtime.platform import metrics

A, B = TP("raw", 0), TP("raw", 1)
C, D = TP("raw", 2), TP("raw", 3)


def test_a_partition_with_work_that_stands_still_is_stuck():
    """The progress of a partition with work has been the same for longer than the timeout."""
    progress = StallDetector(60)
    assert progress.stuck({A: 5, B: 1}, 0) == []
    assert progress.stuck({A: 5, B: 2}, 60) == []
    assert progress.stuck({A: 5, B: 3}, 61) == [A]


def test_progress_or_having_nothing_to_do_restarts_the_time():
    """A progress that moves, or a time without work, starts the clock again."""
    progress = StallDetector(60)
    progress.stuck({A: 5}, 0)
    assert progress.stuck({A: 6}, 50) == []
    assert progress.stuck({A: 6}, 100) == []
    assert progress.stuck({}, 105) == []
    assert progress.stuck({A: 6}, 200) == []


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(watchdog, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(watchdog, "_REBALANCE_MARGIN_S", 0.05)
    monkeypatch.setattr(watchdog, "records_behind", lambda app, tp: app.lag)
    settings = SimpleNamespace(stall_timeout_s=0.05, session_timeout_s=0)
    app = SimpleNamespace(settings=settings, lag=3, rebalancing=False, consumer_generation_id=1)
    app.consumer = SimpleNamespace(flow_active=True, polls=1)
    return SimpleNamespace(app=app, tasks=SimpleNamespace(open={A: 7}, busy=set(), processed_ms={}))


def watch(worker: SimpleNamespace, **more: Any) -> Watchdog:
    """The watchdog of a worker."""
    return Watchdog(worker.app, worker.tasks, metrics.STREAMS_LAG, metrics.STREAMS_COMPLETE_THROUGH, **more)


async def test_lag_without_progress_ends_the_worker(worker: SimpleNamespace):
    """The reason names the partition and the time."""
    with pytest.raises(StalledError, match=r"no progress for 0.05 s: raw\[0\]"):
        await asyncio.wait_for(
            Watchdog(worker.app, worker.tasks, metrics.STREAMS_LAG, metrics.STREAMS_COMPLETE_THROUGH).run(), 5
        )


async def test_a_batch_under_way_counts_as_work(worker: SimpleNamespace):
    """The last batch there is may be the one that hangs."""
    worker.app.lag, worker.tasks.busy = 0, {A}
    with pytest.raises(StalledError):
        await asyncio.wait_for(
            Watchdog(worker.app, worker.tasks, metrics.STREAMS_LAG, metrics.STREAMS_COMPLETE_THROUGH).run(), 5
        )


async def test_a_rebalance_that_does_not_end_ends_the_worker(worker: SimpleNamespace):
    """Everybody else is at work again, and this worker fetches nothing."""
    worker.app.lag, worker.app.rebalancing = 0, True
    with pytest.raises(StalledError, match="a rebalance did not end"):
        await asyncio.wait_for(
            Watchdog(worker.app, worker.tasks, metrics.STREAMS_LAG, metrics.STREAMS_COMPLETE_THROUGH).run(), 5
        )


async def test_a_loop_that_does_not_fetch_any_more_ends_the_worker(
    worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    """Long before its partitions count as stuck: nothing that fetching waits for takes ten seconds."""
    monkeypatch.setattr(watchdog, "_FETCH_TIMEOUT_S", 0.1)
    worker.app.lag = 0
    with pytest.raises(StalledError, match="no fetch for"):
        await asyncio.wait_for(
            Watchdog(worker.app, worker.tasks, metrics.STREAMS_LAG, metrics.STREAMS_COMPLETE_THROUGH).run(), 5
        )


async def test_no_lag_or_an_excuse_keeps_it_alive(worker: SimpleNamespace):
    """While ClickHouse is away, a sink that waits for it is not stuck."""

    async def away() -> str:
        return "ClickHouse is away"

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            Watchdog(worker.app, worker.tasks, metrics.SINK_LAG, metrics.SINK_COMPLETE_THROUGH, paused_by=away).run(),
            0.3,
        )
    worker.app.lag = 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch(worker).run(), 0.3)


async def test_the_lag_of_a_lost_partition_is_not_shown(worker: SimpleNamespace):
    """A rebalance gives partition 0 away with a lag of 3 and brings partition 1: the sum over all workers that scales
    them counts each record once.
    """

    def lags() -> tuple[float | None, float | None]:
        return shown(A, metrics.SINK_LAG), shown(B, metrics.SINK_LAG)

    async def until_shown(expected: tuple[float | None, float | None]) -> None:
        async with asyncio.timeout(5):
            while lags() != expected:
                await asyncio.sleep(0.01)

    metrics.SINK_LAG.metric.clear()
    worker.app.settings.stall_timeout_s = 60
    running = asyncio.create_task(
        Watchdog(worker.app, worker.tasks, metrics.SINK_LAG, metrics.SINK_COMPLETE_THROUGH).run()
    )
    try:
        await until_shown((3, None))
        worker.tasks.open = {B: 0}
        await until_shown((None, 3))
        worker.tasks.open = {}
        await until_shown((None, None))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def shown(tp: TP, gauge: metrics.Gauge = metrics.STREAMS_COMPLETE_THROUGH) -> float | None:
    """What the gauge shows of a partition."""
    samples = [s for family in gauge.metric.collect() for s in family.samples]
    return {(s.labels["topic"], s.labels["partition"]): s.value for s in samples}.get((tp.topic, str(tp.partition)))


def test_a_partition_is_complete_through_now_or_its_last_record() -> None:
    """With nothing waiting it is now, with a backlog the last record's time; it never goes back, and is lost with the
    partition.
    """
    gauge = CompleteThrough(metrics.STREAMS_COMPLETE_THROUGH)
    gauge.update({C, D}, {C, D}, {})
    assert (shown(C), shown(D)) == (None, None)  # taken over with a backlog: unknown
    gauge.update({C, D}, {C}, {C: 5_000})
    assert shown(C) == 5.0
    seen = shown(D)
    assert seen is not None
    assert time.time() - seen < 60
    gauge.update({C, D}, {D}, {C: 5_000, D: 5_000})  # a batch began a moment ago
    assert shown(D) == seen
    gauge.update({D}, set(), {})
    assert shown(C) is None
    gauge.update(set(), set(), {})
