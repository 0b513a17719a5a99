"""An embedded stack for one measurement: free ports, a temporary directory, everything removed afterwards."""

import asyncio
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from bench.measured_process import MeasuredProcess
from embedded.kafka import broker as brokers
from embedded.kafka.config import Broker
from embedded.kafka.installation import install
from embedded.preflight import free_ports
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform.settings import PREFIX, Settings, load, variable

_READY_S = 90.0
_JARS_DIR = Path(".eventpush/jars")  # shared with `make up`
_HEAP_MB = 512


class BenchmarkStack:
    """Kafka with the pipeline's topics; a measurement starts further processes in it."""

    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self.home = home
        self.environ = environ
        self.settings: Settings = load(environ)
        self.children: list[MeasuredProcess] = []
        self.kafka: MeasuredProcess

    @property
    def bootstrap(self) -> str:
        """Kafka's bootstrap address."""
        return self.settings.kafka_bootstrap

    def start(self, name: str, *arguments: str, **settings: object) -> MeasuredProcess:
        """Start a process in this stack; `settings` override the stack's."""
        environ = self.environ | {variable(key): str(value) for key, value in settings.items()}
        child = MeasuredProcess(arguments, environ, self.home / f"{name}-{len(self.children)}.log")
        self.children.append(child)
        return child

    def start_command(self, command: str, **settings: object) -> MeasuredProcess:
        """Start `eventpush <command>`, as a user runs it."""
        return self.start(command, sys.executable, "-m", "eventpush", command, **settings)

    def start_clickhouse(self) -> MeasuredProcess:
        """Start the embedded ClickHouse on this stack's port.

        Without a password: it holds simulated events, for as long as a measurement takes.
        """
        port = self.settings.clickhouse_url.rsplit(":", 1)[1]
        arguments = ("--port", port, "--data-dir", str(self.home / "clickhouse"))
        return self.start("clickhouse", sys.executable, "-m", "embedded.clickhouse", *arguments)

    def free_port(self) -> int:
        """Return a free port."""
        return free_ports(1)[0]

    async def create_topics(self, *names: str) -> None:
        """Create plain topics for a peer, with the stack's number of partitions."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await client.start()
        try:
            await client.create_topics([NewTopic(name, self.settings.topic_partitions, 1) for name in names])
        finally:
            await client.close()

    async def end_offsets(self, topic: str) -> list[int]:
        """Return the end offset of each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, p) for p in range(self.settings.topic_partitions)]
            ends = await consumer.end_offsets(partitions)
            return [ends[tp] for tp in partitions]
        finally:
            await consumer.stop()


@asynccontextmanager
async def benchmark_stack(**settings: object) -> AsyncIterator[BenchmarkStack]:
    """Run Kafka with its topics; `settings` override the defaults. Everything is stopped and removed."""
    with tempfile.TemporaryDirectory(prefix="eventpush-bench-", ignore_cleanup_errors=True) as directory:
        stack = BenchmarkStack(Path(directory), _environ(Path(directory), settings))
        try:
            await _start_kafka(stack)
            await ensure_topics(stack.settings)
            yield stack
        finally:
            for child in reversed(stack.children):
                await child.stop()


def listening(port: int) -> bool:
    """Return whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def wait_ready(child: MeasuredProcess, port: int, host: str = "127.0.0.1") -> None:
    """Wait until `/readyz` on this port returns 200."""
    await wait_until(lambda: _get(f"http://{host}:{port}/readyz") is not None, child, f"/readyz on port {port}")


async def wait_until(
    condition: object, child: MeasuredProcess, what: str, timeout_s: float = _READY_S, pause_s: float = 0.05
) -> None:
    """Wait until `condition()` holds; raise `TimeoutError`, or `RuntimeError` if the child has ended."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        child.require_alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: timeout after {timeout_s:g} s; see {child.log_file}")
        await asyncio.sleep(pause_s)


def scrape(port: int) -> dict[str, float]:
    """Return the values of a process's `/metrics`, summed over labels."""
    text = _get(f"http://127.0.0.1:{port}/metrics")
    values: dict[str, float] = {}
    for name, value in _samples(text or ""):
        values[name] = values.get(name, 0.0) + value
    return values


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.value


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own process
            return str(reply.read().decode())
    except OSError:
        return None


def _environ(home: Path, settings: dict[str, object]) -> dict[str, str]:
    kafka, ingress, clickhouse, *metrics = free_ports(6)
    fixed: dict[str, object] = {
        "kafka_bootstrap": f"127.0.0.1:{kafka}",
        "ingress_port": ingress,
        "clickhouse_url": f"http://127.0.0.1:{clickhouse}",
        "ingress_metrics_port": metrics[0],
        "streams_metrics_port": metrics[1],
        "sink_metrics_port": metrics[2],
        "data_dir": home / "eventpush",
        "log_level": "warning",
        "transaction_timeout_s": 60,  # a broker that has just started on a busy machine is slow
    }
    return {PREFIX + key.upper(): str(value) for key, value in (fixed | settings).items()}


async def _start_kafka(stack: BenchmarkStack) -> None:
    host, port = stack.bootstrap.split(":")
    broker = Broker(stack.home / "kafka", host, int(port), free_ports(1)[0], heap_mb=_HEAP_MB)
    installation = await asyncio.to_thread(install, _JARS_DIR, print)
    await asyncio.to_thread(brokers.prepare, broker, installation)
    stack.kafka = stack.start("kafka", *brokers.command(broker, installation))
    await brokers.wait_ready(stack.bootstrap)
