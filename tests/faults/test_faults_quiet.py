"""A healthy pipeline has nothing to say above INFO, idle or busy, however long it runs."""

import asyncio
import os
from pathlib import Path

import orjson
import pytest

from tests.faults.conftest import without_faults
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline, running

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]

#: Seconds of each half. Faust's own watchdog spoke after 300 s; FAULT_QUIET_S=1800 makes it an hour.
_HALF_S = float(os.environ.get("FAULT_QUIET_S", "390"))
_RATE = 20.0  # events a second
_QUIET = {"debug", "info"}


async def test_a_healthy_pipeline_logs_nothing_above_info(tmp_path_factory: pytest.TempPathFactory):
    """Half of the time without an event, then under a light load: ingress, stream workers, sink and ClickHouse."""
    async with running(Path(tmp_path_factory.mktemp("quiet"))) as pipeline:
        await asyncio.sleep(_HALF_S)
        assert _loud(pipeline) == []
        async with Load(pipeline.ingress_port, pipeline.sent, rate=_RATE, seed=12):
            await asyncio.sleep(_HALF_S)
        await without_faults(pipeline)
        assert _loud(pipeline) == []
        assert {status for process in pipeline.processes for status in process.statuses} == set()


def _loud(pipeline: Pipeline) -> list[str]:
    """The lines above INFO, and those that are no log lines, of all processes but Kafka."""
    stages = [pipeline.clickhouse, pipeline.ingress, *pipeline.streams, pipeline.sink]
    return [f"{process.name}: {line}" for process in stages for line in process.log.read_text().splitlines()
            if _is_loud(line)]  # fmt: skip


def _is_loud(line: str) -> bool:
    try:
        return orjson.loads(line)["level"] not in _QUIET
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return not line.startswith(("---", "ClickHouse "))
