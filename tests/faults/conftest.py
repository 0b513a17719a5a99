"""One pipeline for all fault tests; the long ones run with `pytest -m soak` only."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.faults.check_result import CheckResult
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline, running
from tests.faults.reader import Pulse
from tests.faults.watching import Watched

_seeds = itertools.count(1)
_ASKED_S = 12.0  # of a stall, before its workers are asked


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `soak`, unless it is asked for."""
    if "soak" in (config.option.markexpr or ""):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def pipeline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    """Kafka, ClickHouse, ingress, two stream workers, sink."""
    # Completeness lags behind by the time that a body may take.
    environ = {"EVENTPUSH_INGRESS_BODY_TIMEOUT_S": "1"}
    async with running(tmp_path_factory.mktemp("pipeline"), environ=environ) as pipeline:
        yield pipeline


Harm = Callable[[], Awaitable[object]]


async def exactly_once(
    pipeline: Watched, harm: Harm, *, before_s: float = 2.0, after_s: float = 2.0, months: int = 0
) -> Load:
    """Do the harm under load, let the pipeline recover under load, and check the whole history."""
    await pipeline.ready()
    async with Load(pipeline.ingress_port, pipeline.sent, seed=next(_seeds), months=months) as load:
        await asyncio.sleep(before_s)
        await harm()
        await pipeline.ready()
        await asyncio.sleep(after_s)
    result = await without_faults(pipeline)
    assert result.events >= load.accepted > load.acknowledged / 2  # the load was one
    return load


async def without_faults(pipeline: Watched) -> CheckResult:
    """Let the pipeline come to rest, and check the whole history."""
    result = await pipeline.check()
    assert not result.faults, f"{result}\nhistory and logs: {pipeline.directory}"
    return result


@contextlib.asynccontextmanager
async def pulse_of(pipeline: Pipeline) -> AsyncIterator[Pulse]:
    """Follows the events topic meanwhile; stalled stream workers log the position of their tasks."""
    pulse = Pulse(pipeline.bootstrap)
    tasks = [asyncio.create_task(pulse.run()), asyncio.create_task(_ask_who_stalls(pipeline, pulse))]
    try:
        yield pulse
    finally:
        for task in tasks:
            assert not task.done(), task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_who_stalls(pipeline: Pipeline, pulse: Pulse) -> None:
    while True:
        await asyncio.sleep(1)
        if pulse.stalls[-1].lasted_s > _ASKED_S:
            for worker in pipeline.streams:
                worker.send_signal(signal.SIGUSR1)
            await asyncio.sleep(2 * _ASKED_S)
