"""A window of five million identities: how soon a worker is at work with it, and what it takes."""

import asyncio
import shutil
import signal
import time

import aiohttp
import numpy as np
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from schemas import topics
from streams.state_restore import encode
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline, running
from tests.faults.processes import Process, until
from tests.faults.reader import rows
from tests.identities import random_rows

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]

_IDENTITIES = 5_000_000
_BATCH_ROWS = 500  # what a transaction of the stream stage remembers, at a middling load
_PROBES = 32  # devices: enough that every partition has some
_EMPTY_BOUND_S, _AGAIN_BOUND_S = 60.0, 20.0


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
async def test_a_window_of_five_million_identities(tmp_path_factory: pytest.TempPathFactory, store: str):
    """With 5,000,000 live identities one worker for all partitions, under load, processes new events of each within a
    minute of its start with nothing on its disk, and within 20 s when it is killed then and started again. It takes
    less than 120 bytes of resident memory for each identity.
    """
    environ = {"EVENTPUSH_WINDOW_STORE": store}
    async with running(tmp_path_factory.mktemp(store), workers=1, environ=environ) as pipeline:
        (worker,) = pipeline.streams
        empty_bytes = _resident(worker)
        await worker.stop(signal.SIGKILL)
        shutil.rmtree(pipeline.settings.data_dir / "window", ignore_errors=True)
        await _fill(pipeline)
        for number, bound_s in enumerate((_EMPTY_BOUND_S, _AGAIN_BOUND_S)):
            await worker.stop(signal.SIGKILL)
            began_s = time.monotonic()
            worker.start()
            took_s = await _processed(pipeline, f"restored {number}") - began_s
            each_bytes = (_resident(worker) - empty_bytes) / _IDENTITIES
            print(f"{store}: at work after {took_s:.1f} s, {each_bytes:.0f} bytes an identity")  # noqa: T201 - a measure
            assert await _identities(pipeline, worker) >= _IDENTITIES
            assert took_s < bound_s
            assert each_bytes < 120


async def _fill(pipeline: Pipeline) -> None:
    """Write a changelog that spans the whole retention: every segment is alive."""
    rng, now_us, retention_us = (
        np.random.default_rng(1),
        time.time_ns() // 1_000,
        pipeline.settings.window_s * 1_000_000,
    )
    producer = AIOKafkaProducer(bootstrap_servers=pipeline.bootstrap, acks="all", max_batch_size=900_000)
    await producer.start()
    for done in range(0, _IDENTITIES, _BATCH_ROWS):
        time_us = now_us - retention_us + retention_us * done // _IDENTITIES
        value = encode(random_rows(rng, _BATCH_ROWS), time_us)
        partition = done // _BATCH_ROWS % pipeline.settings.topic_partitions
        await producer.send(topics.WINDOW, value, b"", partition, time_us // 1000)
    await producer.stop()


async def _processed(pipeline: Pipeline, location: str) -> float:
    """When new events, of all partitions, have become rows in ClickHouse, by the monotonic clock."""
    async with Load(pipeline.ingress_port, pipeline.sent, seed=61) as load:
        await asyncio.gather(*map(load.deliver, load.probes(_PROBES, location)))

        async def are_stored() -> bool:
            query = f"SELECT count() AS n FROM telematics.events WHERE location = '{location}'"
            return (await rows(pipeline.settings, query))[0]["n"] == _PROBES

        await until(are_stored, 2 * _EMPTY_BOUND_S, "what is sent after the start is stored")
        return time.monotonic()


async def _identities(pipeline: Pipeline, worker: Process) -> float:
    """As the worker's metrics say."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{pipeline.port_of(worker)}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("eventpush_streams_window_identities"))


def _resident(worker: Process) -> int:
    """Bytes of resident memory."""
    return int(psutil.Process(worker.pid).memory_info().rss)
