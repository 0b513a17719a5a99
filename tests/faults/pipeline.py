"""The whole pipeline as real processes on ports and directories of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from embedded.kafka import broker as brokers
from embedded.kafka.aot import ensure_cache
from embedded.kafka.config import Broker, cluster
from embedded.kafka.installation import install
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform.settings import load
from tests.faults.clock import Clock
from tests.faults.processes import Process, free_port
from tests.faults.reader import rows
from tests.faults.watching import READY_S, Watched

#: Where Kafka's jars are kept between runs.
JARS = Path(os.environ.get("EVENTPUSH_DATA_DIR", ".eventpush")) / "jars"

_HEAP_MB = 384


class Pipeline(Watched):
    """Kafka, ClickHouse, one ingress, some stream workers, one sink; everything is restarted when it dies."""

    def __init__(
        self, directory: Path, *, workers: int = 2, replicas: int = 1, environ: dict[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = [(free_port(), free_port()) for _ in range(replicas)]
        self._brokers = (
            [Broker(directory / "kafka", port=ports[0][0], controller_port=ports[0][1], heap_mb=_HEAP_MB)]
            if replicas == 1
            else cluster(directory / "kafka", ports, heap_mb=_HEAP_MB)
        )
        self._clickhouse_port = free_port()
        settings = {
            "EVENTPUSH_KAFKA_BOOTSTRAP": ",".join(broker.bootstrap for broker in self._brokers),
            "EVENTPUSH_CLICKHOUSE_URL": f"http://127.0.0.1:{self._clickhouse_port}",
            "EVENTPUSH_CLICKHOUSE_PASSWORD": "of the fault tests",
            "EVENTPUSH_INGRESS_PORT": str(free_port()),
            "EVENTPUSH_INGRESS_METRICS_PORT": str(free_port()),
            "EVENTPUSH_TOPIC_REPLICATION_FACTOR": str(replicas),
            "EVENTPUSH_TOPIC_MIN_INSYNC_REPLICAS": str(max(1, replicas - 1)),
            "EVENTPUSH_LOG_FORMAT": "json",
        }
        super().__init__(directory, settings | (environ or {}))
        self._stages = 0
        self._metrics_ports: dict[str, int] = {}
        self.clock = Clock(directory / "clock")  # of the stages
        self.kafka: list[Process] = []
        self.gone: list[Process] = []  # workers that were removed
        self.clickhouse = self._process("clickhouse", self._clickhouse_command())
        self.ingress = self._stage("ingress")
        self.streams = [self._stage("streams") for _ in range(workers)]
        self.sink = self._stage("sink")

    @property
    def kafka_data(self) -> list[Path]:
        """Where each broker keeps its topics."""
        return [broker.data_dir for broker in self._brokers]

    @property
    def clickhouse_data(self) -> Path:
        """Where ClickHouse keeps everything."""
        return self.directory / "clickhouse"

    # --- starting and stopping ---

    async def start(self) -> None:
        """Start everything, and wait until all of it is ready."""
        await self._start_kafka()
        self.clickhouse.start()
        await ensure_topics(self.settings)
        for process in (self.ingress, *self.streams, self.sink):
            process.start()
        await self.ready()

    async def stop(self) -> None:
        """Stop everything in good order; raises TimeoutError if something does not."""
        stages = (self.ingress, *self.streams, self.sink)
        await asyncio.gather(*(process.stop() for process in stages))
        await asyncio.gather(*(process.stop() for process in (self.clickhouse, *self.kafka)))

    async def kill(self) -> None:
        """End everything at once, by SIGKILL, whatever state it is in."""
        await asyncio.gather(*(process.stop(signal.SIGKILL) for process in self.processes))

    async def again(self) -> None:
        """Start everything once more on the same data."""
        for process in (*self.kafka, self.clickhouse):
            process.start()
        await brokers.wait_ready(self.bootstrap, READY_S, brokers=len(self.kafka))
        for process in (self.ingress, *self.streams, self.sink):
            process.start()
        await self.ready()

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [*self.kafka, self.clickhouse, self.ingress, *self.streams, self.sink]

    async def add_worker(self) -> Process:
        """One more stream worker."""
        worker = self._stage("streams")
        self.streams.append(worker)
        worker.start()
        return worker

    def reconfigure(self, environ: dict[str, str]) -> None:
        """Replace the stream workers and the sink, which must be stopped, by ones with other settings."""
        self.environ |= environ
        self.settings = load(self.environ)
        self.gone += [*self.streams, self.sink]
        self.streams = [self._stage("streams") for _ in self.streams]
        self.sink = self._stage("sink")

    async def remove_worker(self) -> None:
        """One stream worker less: the oldest."""
        worker = self.streams.pop(0)
        self.gone.append(worker)
        await worker.stop()

    # --- looking at it ---

    def port_of(self, process: Process) -> int:
        """The operators' port of a stage."""
        return self._metrics_ports[process.name]

    async def clickhouse_answers(self) -> bool:
        """Whether a query is answered."""
        try:
            return bool(await rows(self.settings, "SELECT 1"))
        except (OSError, aiohttp.ClientError):
            return False

    def operators_ports(self) -> list[int]:
        return [self.port_of(process) for process in (self.ingress, *self.streams, self.sink)]

    # --- how each is started ---

    async def _start_kafka(self) -> None:
        installation = await asyncio.to_thread(install, JARS)
        await asyncio.to_thread(ensure_cache, installation)
        for broker in self._brokers:
            await asyncio.to_thread(brokers.prepare, broker, installation)
            process = self._process(f"kafka-{broker.node_id}", brokers.command(broker, installation))
            self.kafka.append(process)
            process.start()
        await brokers.wait_ready(self.bootstrap, READY_S, brokers=len(self.kafka))

    def _clickhouse_command(self) -> list[str]:
        command = [sys.executable, "-m", "embedded.clickhouse", "--port", str(self._clickhouse_port)]
        command += ["--password-from-env", "EVENTPUSH_CLICKHOUSE_PASSWORD"]
        return [*command, "--data-dir", str(self.clickhouse_data)]

    def _stage(self, stage: str) -> Process:
        return self._stage_of([sys.executable, "-m", "tests.faults.points"], stage, FAULT_CLOCK=str(self.clock.file))

    def _stage_of(self, program: list[str], stage: str, **environ: str) -> Process:
        self._stages += 1
        name = f"{stage}-{self._stages}"
        self._metrics_ports[name] = free_port()
        environ["EVENTPUSH_DATA_DIR"] = str(self.directory / name)
        environ[f"EVENTPUSH_{stage.upper()}_METRICS_PORT"] = str(self._metrics_ports[name])
        return self._process(name, [*program, stage], environ)

    def _process(self, name: str, command: list[str], environ: dict[str, str] | None = None) -> Process:
        return Process(name, command, os.environ | self.environ | (environ or {}), self.directory)


@contextlib.asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[Pipeline]:
    """A pipeline that has been started, and is killed at the end; `options` as for `Pipeline`."""
    pipeline = Pipeline(directory, **options)
    try:
        await pipeline.start()
        yield pipeline
    finally:
        await pipeline.kill()
