"""The deduplication window on real processes: its edge, what it outlives, and clocks that are set under it.

The window is 40 s long here, so it forgets between 40 and 50 s after an event's arrival.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.check_result import CheckResult
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline, running
from tests.faults.reader import rows

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]

_WINDOW_S = 40
_FORGOTTEN_S = _WINDOW_S * 1.25 + 2
_PARTITIONS_ALL = 16  # devices: enough that every partition has some


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["memory", "rocksdb"])
async def pipeline(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Pipeline]:
    """A pipeline with a small window, in memory and on disk, whose clock can be set."""
    window = {"EVENTPUSH_WINDOW_S": str(_WINDOW_S), "EVENTPUSH_SENDER_RETRY_S": str(_WINDOW_S)}
    window["EVENTPUSH_FUTURE_SKEW_S"] = "86400"  # a clock that is set back must not make events come from the future
    window["EVENTPUSH_WINDOW_STORE"] = request.param
    async with running(tmp_path_factory.mktemp("window"), environ=window) as pipeline:
        yield pipeline


async def deliver(load: Load, payloads: list[str]) -> None:
    await asyncio.gather(*map(load.deliver, payloads))


async def test_a_repeat_is_recognised_until_the_windows_edge(pipeline: Pipeline):
    """The same events again every few seconds, so also in each later segment of the window, after a kill of all stream
    workers and after a rebalance, up to 39 s after their arrival: each is stored once.
    """
    async with Load(pipeline.ingress_port, pipeline.sent, seed=81) as load:
        probes = load.probes(_PARTITIONS_ALL, "edge")
        await deliver(load, probes)
        arrived_s = time.monotonic()
        for number in range(6):
            await asyncio.sleep(3)
            await deliver(load, probes)
            if number == 1:
                for worker in pipeline.streams:
                    assert worker.send_signal(signal.SIGKILL)
            if number == 3:
                await pipeline.add_worker()
                await pipeline.remove_worker()
        await asyncio.sleep(max(0.0, arrived_s + _WINDOW_S - 1 - time.monotonic()))
        await deliver(load, probes)
    result = await pipeline.check()
    assert not result.faults, f"{result}\nhistory and logs: {pipeline.directory}"


async def test_what_has_expired_is_a_new_event_and_one_row(pipeline: Pipeline):
    """A repeat after the window has forgotten comes on the topics again, as the setting says; whoever selects from
    `telematics.events` still sees one row, at every moment. Nothing else is doubled.
    """
    async with Load(pipeline.ingress_port, pipeline.sent, seed=82) as load:
        probes = load.probes(_PARTITIONS_ALL, "expired")
        await deliver(load, probes)
        await asyncio.sleep(_FORGOTTEN_S)
        await deliver(load, probes)
    result = await pipeline.check()
    assert set(result.faults) == {"doubled", "unaccounted"}, f"{result}\nhistory and logs: {pipeline.directory}"
    assert result.count("doubled") == _PARTITIONS_ALL
    assert _imeis(result, "doubled") == _imeis(result, "unaccounted")
    counts = await rows(
        pipeline.settings,
        "SELECT count() AS n FROM telematics.events WHERE location = 'expired' GROUP BY event_id",
    )
    assert [int(str(row["n"])) for row in counts] == [1] * _PARTITIONS_ALL


def _imeis(result: CheckResult, kind: str) -> set[str]:
    return {what.partition("imei='")[2][:15] for what in result.found[kind]}


# --- clocks ---


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clocked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    """A pipeline with a window of an hour, whose stages' clock can be set."""
    settings = {"EVENTPUSH_WINDOW_S": "3600", "EVENTPUSH_SENDER_RETRY_S": "3600", "EVENTPUSH_FUTURE_SKEW_S": "172800"}
    async with running(tmp_path_factory.mktemp("clocked"), environ=settings) as pipeline:
        yield pipeline


async def test_clocks_that_step_forwards_and_backwards_change_nothing(clocked: Pipeline):
    """The stages' clock jumps a day ahead, to the true time, a day behind and back, each for 20 s under load: what was
    sent before each step, and comes again after it, is still recognised.
    """
    async with Load(clocked.ingress_port, clocked.sent, seed=83) as load:
        probes = load.probes(_PARTITIONS_ALL, "clock steps")
        await deliver(load, probes)
        for ahead_s in (86_400, 0, -86_400, 0):
            clocked.clock.set(ahead_s)
            await asyncio.sleep(20)
            await deliver(load, probes)
    result = await clocked.check()
    assert not result.faults, f"{result}\nhistory and logs: {clocked.directory}"
