"""Full disks: whoever cannot write says so, nothing gets a 200 that is not stored, and with room again all goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults import disk
from tests.faults.conftest import exactly_once
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.pipeline import Pipeline
from tests.faults.processes import until

pytestmark = [
    pytest.mark.soak,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(disk.problem() is not None, reason=str(disk.problem())),
]

_MEGABYTES = 512
_LEFT = 2 * 2**20  # bytes: some seconds of load


class OnSmallDisks:
    """A pipeline whose Kafka and ClickHouse each have a small disk of their own."""

    def __init__(self, pipeline: Pipeline, kafka: SmallDisk, clickhouse: SmallDisk) -> None:
        self.pipeline = pipeline
        self.kafka = kafka
        self.clickhouse = clickhouse


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnSmallDisks]:
    pipeline = Pipeline(Path(tmp_path_factory.mktemp("disk")))
    with ExitStack() as mounted:
        kafka = mounted.enter_context(small_disk(pipeline.kafka_data[0], _MEGABYTES))
        clickhouse = mounted.enter_context(small_disk(pipeline.clickhouse_data, _MEGABYTES))
        try:
            await pipeline.start()
            yield OnSmallDisks(pipeline, kafka, clickhouse)
        finally:
            await pipeline.kill()


async def test_kafkas_disk_is_full(small: OnSmallDisks):
    """The broker cannot write any more: from then on no 200. With room again the broker starts, and all goes on."""
    pipeline = small.pipeline

    async def harm():
        small.kafka.fill(leave=_LEFT)

        async def nothing_is_acknowledged() -> bool:
            latest = max((s.answered_s or 0.0) for s in pipeline.sent if s.status == 200)
            return time.monotonic() - latest > 3

        await until(nothing_is_acknowledged, 120, "the disk is full", every_s=1)
        small.kafka.empty()

    await exactly_once(pipeline, harm, after_s=5)


async def test_clickhouses_disk_is_full(small: OnSmallDisks):
    """ClickHouse refuses inserts for want of room: subscribers notice nothing, the sink repeats until there is room."""
    pipeline = small.pipeline

    async def harm():
        small.clickhouse.fill(leave=_LEFT)

        async def is_refused() -> bool:
            return "NOT_ENOUGH_SPACE" in pipeline.sink.log.read_text()

        await until(is_refused, 120, "ClickHouse says that its disk is full", every_s=1)
        await asyncio.sleep(5)
        small.clickhouse.empty()

    await exactly_once(pipeline, harm)
