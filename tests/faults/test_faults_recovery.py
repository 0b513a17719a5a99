"""How soon it goes on after a kill, what `/readyz` says meanwhile, and that a worker without progress ends itself."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import exactly_once, without_faults
from tests.faults.faults import struck
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline
from tests.faults.processes import Process, until
from tests.faults.reader import rows

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]

_PROBES = 32  # devices: enough that every partition has some
_BOUND_S = 15.0


def _process(pipeline: Pipeline, name: str) -> Process:
    return {
        "ingress": pipeline.ingress,
        "streams": pipeline.streams[0],
        "sink": pipeline.sink,
        "clickhouse": pipeline.clickhouse,
        "kafka": pipeline.kafka[0],
    }[name]


@pytest.mark.parametrize("name", ["ingress", "streams", "sink", "clickhouse", "kafka"])
async def test_back_to_processing_after_a_kill(pipeline: Pipeline, name: str, record_property):
    """Kill -9 under load: events of every partition that are sent from that moment on are rows in ClickHouse within
    15 s, or, on a machine with more work than cores, within as many times that as it has too much.
    """
    bound_s = _BOUND_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    async with Load(pipeline.ingress_port, pipeline.sent, seed=51) as load:
        await asyncio.sleep(2)
        where = f"after {name} {time.time_ns()}"
        probes = load.probes(_PROBES, where)
        assert _process(pipeline, name).send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        await asyncio.gather(*map(load.deliver, probes))

        async def are_stored() -> bool:
            query = f"SELECT count() AS n FROM telematics.events WHERE location = '{where}'"
            try:
                return (await rows(pipeline.settings, query))[0]["n"] == _PROBES
            except OSError:  # aiohttp's connection errors are among them
                return False

        await until(are_stored, bound_s, f"what is sent after a kill of {name} is stored")
        took_s = round(time.monotonic() - killed_s, 1)
        record_property("seconds", took_s)
        _note(pipeline.directory / "recovery.json", name, took_s)
    await without_faults(pipeline)


def _note(file: Path, name: str, took_s: float) -> None:
    """Keep the figure for the docs, and say it (`pytest -s`)."""
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {name: took_s}))
    print(f"back to processing after kill -9 of {name}: {took_s} s")  # noqa: T201 - a measure


async def test_readyz_names_what_is_away(pipeline: Pipeline):
    """Without ClickHouse only the sink says so; without Kafka every stage says so; with both
    back all are ready.
    """
    ports = [pipeline.port_of(process) for process in (pipeline.ingress, *pipeline.streams, pipeline.sink)]

    async def states() -> list[set[str] | None]:
        answers = await asyncio.gather(*map(pipeline.readiness, ports))
        return [None if failed is None else set(failed) for failed in answers]

    async def harm():
        await pipeline.clickhouse.stop(signal.SIGKILL)
        all_well: list[set[str] | None] = [set()] * (len(ports) - 1)

        async def clickhouse_is_named() -> bool:
            return await states() == [*all_well, {"clickhouse"}]

        await until(clickhouse_is_named, 30, "the sink, and only it, says that ClickHouse is away")
        pipeline.clickhouse.start()
        await pipeline.ready()
        pipeline.kafka[0].send_signal(signal.SIGSTOP)
        try:

            async def kafka_is_named() -> bool:
                return all(failed is not None and "kafka" in failed for failed in await states())

            await until(kafka_is_named, 20, "every stage says that Kafka is away")
        finally:
            pipeline.kafka[0].send_signal(signal.SIGCONT)

    await exactly_once(pipeline, harm)


async def test_a_worker_without_progress_ends_itself(pipeline: Pipeline):
    """A stream worker that hangs with work before it ends with status 1 and a reason, and is replaced."""
    worker = pipeline.streams[0]

    async def harm():
        lives = len(worker.statuses)
        assert await struck(worker, "streams before the transaction", "hang")

        async def has_ended() -> bool:
            return len(worker.statuses) > lives

        await until(has_ended, pipeline.settings.stall_timeout_s + 30, "the worker has ended itself")
        assert worker.statuses[-1] == 1
        assert f"no progress for {pipeline.settings.stall_timeout_s} s" in worker.log.read_text()

    await exactly_once(pipeline, harm)
