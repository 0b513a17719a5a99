"""`telematics.completeness` keeps its word, whatever is killed: nothing that arrived earlier appears afterwards."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import pytest

from tests.faults.conftest import without_faults
from tests.faults.faults import struck
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline
from tests.faults.processes import until
from tests.faults.reader import rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CAUGHT_UP_S = 60.0
_UNAVAILABLE = (OSError, aiohttp.ClientError, TimeoutError)


class Said(NamedTuple):
    """What was said of a partition, and how many events and dead letters with an earlier arrival there were then."""

    partition: int
    through: str
    visible: int


async def said(pipeline: Pipeline) -> list[Said]:
    """Ask how complete each partition is, and then how many rows are there."""
    found = await rows(pipeline.settings, "SELECT partition, complete_through FROM telematics.completeness")
    return [
        Said(int(str(row["partition"])), through := str(row["complete_through"]),
             await visible(pipeline, int(str(row["partition"])), through))
        for row in found
    ]  # fmt: skip


async def visible(pipeline: Pipeline, partition: int, through: str) -> int:
    where = f"WHERE raw.partition = {partition} AND received_at < '{through}'"
    (found,) = await rows(
        pipeline.settings,
        f"SELECT (SELECT count() FROM telematics.events {where})"
        f" + (SELECT count() FROM telematics.dead_letters {where}) AS n",
    )
    return int(str(found["n"]))


@contextlib.asynccontextmanager
async def listening(pipeline: Pipeline) -> AsyncIterator[list[Said]]:
    """Ask again and again, while ClickHouse answers."""
    heard: list[Said] = []

    async def listen() -> None:
        while True:
            with contextlib.suppress(*_UNAVAILABLE):
                heard.extend(await said(pipeline))
            await asyncio.sleep(0.5)

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def complete_since(pipeline: Pipeline, moment_s: float) -> None:
    """Wait until everything accepted before the moment (s since the epoch) is said to be here."""

    async def is_complete() -> bool:
        try:
            query = "SELECT toUnixTimestamp(min(complete_through)) AS s FROM telematics.completeness"
            (found,) = await rows(pipeline.settings, query)
        except _UNAVAILABLE:
            return False
        return int(str(found["s"])) >= moment_s

    await until(is_complete, _CAUGHT_UP_S, "complete through the end of the load", every_s=0.2)


async def test_nothing_appears_behind_the_watermark(pipeline: Pipeline):
    """Ingress, stream workers, sink, ClickHouse and broker are killed under load: of no moment that was ever said to be
    complete does an event or a dead letter appear afterwards, and in the end it is complete through now, without load.
    """
    await pipeline.ready()
    async with listening(pipeline) as heard:
        async with Load(pipeline.ingress_port, pipeline.sent, seed=1_300) as load:
            await complete_since(pipeline, time.time())
            struck_all = await asyncio.gather(
                struck(pipeline.ingress, "ingress after the broker's ack"),
                struck(pipeline.streams[0], "streams between changelog and commit"),
                struck(pipeline.streams[1], "streams right after commit"),
                struck(pipeline.sink, "sink between insert and commit"),
            )
            assert all(struck_all)
            await pipeline.ready()
            assert pipeline.clickhouse.send_signal(signal.SIGKILL)
            assert pipeline.kafka[0].send_signal(signal.SIGKILL)
            await asyncio.sleep(1)
            await pipeline.ready()
        await complete_since(pipeline, time.time())
    assert load.accepted > 0
    await without_faults(pipeline)
    moments = set(heard)
    assert len({moment.through for moment in moments}) > 3
    for moment in moments:
        assert await visible(pipeline, moment.partition, moment.through) == moment.visible, moment
