"""More partitions on a running pipeline, under load, by a command that is killed between any two of its steps."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from eventpush.growth.grow import grow
from eventpush.reconciliation.reconcile import reconcile
from ingress.batching import partition_of
from runtime.kafka.topic_admin import admin, existing_topics, gate, partition_counts
from runtime.platform.errors import OperatorError
from schemas import topics
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline, running
from tests.faults.points import POINTS_OF_GROWTH
from tests.faults.processes import until
from tests.faults.reader import Reader

pytestmark = pytest.mark.asyncio(loop_scope="session")

_BEFORE, _AFTER = 4, 12
_RUN_S = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    """A pipeline of four partitions, with one worker."""
    environ = {"EVENTPUSH_TOPIC_PARTITIONS": str(_BEFORE), "EVENTPUSH_INGRESS_BODY_TIMEOUT_S": "1"}
    async with running(tmp_path_factory.mktemp("growth"), workers=1, environ=environ) as pipeline:
        yield pipeline


async def test_a_growth_that_is_killed_at_every_step_is_exact(small: Pipeline):
    """Under load, from 4 to 12 partitions, with kill -9 of the command between any two steps: nothing is lost, doubled
    or out of order, repeats of events from before are duplicates, and the account adds up. The ingress says what is
    going on, and when to retry.
    """
    async with Load(small.ingress_port, small.sent, seed=91, rate=200, devices=100) as load:
        probes = load.probes(64, "before the growth")
        await asyncio.gather(*map(load.deliver, probes))
        await asyncio.sleep(2)
        for point in POINTS_OF_GROWTH:
            assert await _grow(small, point) == -signal.SIGKILL, small.directory
            if point == "topics with the stages gone":
                assert await _refusal(small, probes[0]) == (503, "5", "the topics are getting more partitions; retry")
        assert await _grow(small) == 0
        await _start_stages_again(small)
        await asyncio.gather(*map(load.deliver, probes))
        await asyncio.gather(*map(load.deliver, load.probes(64, "after the growth")))
        await asyncio.sleep(2)
    async with admin(small.settings) as client:
        existing = await existing_topics(client)
        assert set(partition_counts(existing).values()) == {_AFTER}
        assert len(existing[topics.DEVICES]) == _BEFORE
        assert await gate(client) is None
    result = await small.check()
    faults = result.faults
    moved = faults.pop("out_of_order", {})  # the checker wants a device on one partition; here it is on two
    assert not faults, f"{result}\nhistory and logs: {small.directory}"
    for imei, where in moved.items():
        expected = sorted({partition_of(imei.encode(), count) for count in (_BEFORE, _AFTER)})
        assert set(where) == {f"on partitions {expected}"}
    assert moved, "no device has moved"
    assert result.events >= load.accepted
    assert (await reconcile(small.settings)).discrepancies == []
    await _states_are_where_their_devices_are(small)


async def test_a_second_growth_takes_over_and_what_cannot_be_is_refused(small: Pipeline):
    """The first says so and ends, the second one finishes. Fewer partitions are refused, the same number is nothing to
    do, and a dry run changes nothing.
    """
    async with admin(small.settings) as client:
        (before,) = set(partition_counts(await existing_topics(client)).values())
    with pytest.raises(OperatorError, match="would take some away, which Kafka cannot"):
        await grow(small.settings, before - 1, _ignore)
    assert not (await grow(small.settings, before, _ignore)).done
    assert not (await grow(small.settings, before + 2, _ignore, dry_run=True)).done
    said: list[str] = []
    first = asyncio.create_task(grow(small.settings, before + 2, said.append))

    async def has_closed_the_gate() -> bool:
        return any("events are refused" in line for line in said)

    await until(has_closed_the_gate, 30, "the first growth has closed the gate")
    second = asyncio.create_task(grow(small.settings, before + 2, _ignore))
    with pytest.raises(OperatorError, match="another `topics grow` began meanwhile"):
        await first
    assert (await second).done
    async with admin(small.settings) as client:
        assert set(partition_counts(await existing_topics(client)).values()) == {before + 2}
        assert await gate(client) is None


def _ignore(_line: str) -> None:
    """Report nothing."""


async def _grow(pipeline: Pipeline, point: str | None = None) -> int:
    """Run the command, to be killed at a point; return its exit status."""
    trigger = pipeline.directory / "grow.trigger"
    if point is not None:
        trigger.write_text(f"kill {point}")
    command = ["-m", "tests.faults.points", "topics", "grow", "--partitions", str(_AFTER)]
    began_s = time.monotonic()
    with (pipeline.directory / "grow.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | pipeline.environ | {"FAULT_TRIGGER": str(trigger)},
            start_new_session=True,
        )
        status = await asyncio.wait_for(process.wait(), _RUN_S)
        log.write(f"--- {point}: status {status} after {time.monotonic() - began_s:.1f} s\n".encode())
    return status


async def _refusal(pipeline: Pipeline, payload: str) -> tuple[int, str | None, str]:
    """What the ingress answers to an event, once it knows that the gate is closed."""
    answers = []

    async def refused() -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{pipeline.ingress_port}/api/events",
                data=payload.encode(),
                headers={"Content-Type": "application/json"},
            ) as answer,
        ):
            answers.append(
                (answer.status, answer.headers.get("Retry-After"), json.loads(await answer.read())["message"])
            )
        return answers[-1][1] == "5"

    await until(refused, 10, "the ingress says that the topics grow")
    return answers[-1]


async def _start_stages_again(pipeline: Pipeline) -> None:
    """Replace the stages by ones that know the new number of partitions."""
    await asyncio.gather(*(process.stop() for process in (*pipeline.streams, pipeline.sink)))
    pipeline.reconfigure({"EVENTPUSH_TOPIC_PARTITIONS": str(_AFTER)})
    for process in (*pipeline.streams, pipeline.sink):
        process.start()
    await pipeline.ready()


async def _states_are_where_their_devices_are(pipeline: Pipeline) -> None:
    """Each device has one state, in the partition that its events have now."""
    reader = Reader(pipeline.bootstrap)
    await reader.read()
    where: dict[str, set[int]] = {}
    for seen in reader.seen:
        if seen.topic == topics.LATEST:
            (imei,) = re.findall(r'"imei":"(\d{15})"', seen.value)
            where.setdefault(imei, set()).add(seen.partition)
    assert where
    for imei, partitions in where.items():
        assert partitions == {partition_of(imei.encode(), _AFTER)}
