"""The whole pipeline as real processes on ports and directories of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import aiohttp
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from embedded.kafka import broker as brokers
from embedded.kafka.config import Broker, cluster
from embedded.kafka.installation import install
from runtime.settings import Settings, load
from runtime.topics_admin import admin, ensure_topics
from schemas import topics
from tests.faults.checker import check
from tests.faults.history import History, Seen, Sent, save
from tests.faults.processes import Process, free_port, until
from tests.faults.reader import Reader, consumer, read_clickhouse, stored
from tests.faults.verdict import Verdict

#: Where Kafka's jars are kept between runs.
JARS = Path(os.environ.get("EVENTPUSH_DATA_DIR", ".eventpush")) / "jars"

_READY_S = 90.0
_DRAIN_S = 120.0


class Pipeline:
    """Kafka, ClickHouse, one ingress, some stream workers, one sink; everything is restarted when it dies."""

    def __init__(self, directory: Path, *, workers: int = 2, replicas: int = 1) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        ports = [(free_port(), free_port()) for _ in range(replicas)]
        heap_mb = 384
        self._brokers = (
            [Broker(directory / "kafka", port=ports[0][0], controller_port=ports[0][1], heap_mb=heap_mb)]
            if replicas == 1
            else cluster(directory / "kafka", ports, heap_mb=heap_mb)
        )
        self.bootstrap = ",".join(broker.bootstrap for broker in self._brokers)
        self.ingress_port = free_port()
        self._clickhouse_port = free_port()
        self.clickhouse_url = f"http://127.0.0.1:{self._clickhouse_port}"
        self._environ = {
            "EVENTPUSH_KAFKA_BOOTSTRAP": self.bootstrap,
            "EVENTPUSH_CLICKHOUSE_URL": self.clickhouse_url,
            "EVENTPUSH_INGRESS_PORT": str(self.ingress_port),
            "EVENTPUSH_INGRESS_METRICS_PORT": str(free_port()),
            "EVENTPUSH_TOPIC_REPLICATION_FACTOR": str(replicas),
            "EVENTPUSH_TOPIC_MIN_INSYNC_REPLICAS": str(max(1, replicas - 1)),
            "EVENTPUSH_LOG_FORMAT": "json",
        }
        self.settings: Settings = load(self._environ)
        self._stages = 0
        self._metrics_ports: dict[str, int] = {}
        self.sent: list[Sent] = []  # all attempts of all loads
        self.poison: set[str] = set()  # texts of records that a test put onto a topic past the pipeline
        self.reader = Reader(self.bootstrap)
        self.kafka: list[Process] = []
        self.clickhouse = self._process("clickhouse", self._clickhouse_command())
        self.ingress = self._stage("ingress")
        self.streams = [self._stage("streams") for _ in range(workers)]
        self.sink = self._stage("sink")

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
        await brokers.wait_ready(self.bootstrap, _READY_S, brokers=len(self.kafka))
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

    async def remove_worker(self) -> None:
        """One stream worker less."""
        await self.streams.pop(0).stop()

    async def ready(self, timeout_s: float = _READY_S) -> float:
        """Wait until every stage says that it is ready; how long that took."""
        return await until(self._is_ready, timeout_s, f"everything ready; see the logs in {self.directory}")

    # --- looking at it ---

    async def verdict(self) -> Verdict:
        """Let the pipeline come to rest, and compare `sent` with what there is. The history is kept."""
        with contextlib.suppress(TimeoutError):  # the checker says what is missing
            await until(self._is_judged, _DRAIN_S, "every raw event judged", every_s=0.5)
            await until(self._is_stored, _DRAIN_S, "every outcome in ClickHouse", every_s=0.5)
        history = History(self.sent, self._but_poison(self.reader.seen), await read_clickhouse(self.clickhouse_url))
        await asyncio.to_thread(save, history, self.directory / "history")
        return await asyncio.to_thread(check, history)

    def _but_poison(self, seen: list[Seen]) -> list[Seen]:
        return [s for s in seen if not any(poison in s.value for poison in self.poison)]

    async def _is_stored(self) -> bool:
        await self.reader.read()
        on_topics = Counter(s.topic for s in self.reader.seen)
        refused = sum(s.topic == topics.DEAD_LETTER and '"stage":"sink"' in s.value for s in self.reader.seen)
        try:
            found = await stored(self.clickhouse_url)
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False
        return (
            found["events"] >= on_topics[topics.EVENTS] - refused
            and found["dead_letters"] >= on_topics[topics.DEAD_LETTER]
        )

    async def _is_judged(self) -> bool:
        raw = [TopicPartition(topics.RAW, p) for p in range(self.settings.topic_partitions)]
        try:
            async with asyncio.timeout(10), consumer(self.bootstrap) as client:
                ends = await client.end_offsets(raw)
            async with asyncio.timeout(10):
                committed = await self._committed()
        except (KafkaError, OSError, TimeoutError):
            return False
        return all(committed.get(tp, 0) >= end for tp, end in ends.items())

    async def _committed(self) -> dict[TopicPartition, int]:
        async with admin(self.settings) as client:
            offsets = await client.list_consumer_group_offsets(self.settings.streams_app_id)
        return {tp: found.offset for tp, found in offsets.items()}

    async def _is_ready(self) -> bool:
        ports = [(self.ingress, self.ingress_port)]
        ports += [(process, self._metrics_ports[process.name]) for process in (*self.streams, self.sink)]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
            answers = await asyncio.gather(*(_answers_200(session, port) for _, port in ports))
        return all(answers)

    # --- how each is started ---

    async def _start_kafka(self) -> None:
        installation = await asyncio.to_thread(install, JARS)
        for broker in self._brokers:
            await asyncio.to_thread(brokers.prepare, broker, installation)
            process = self._process(f"kafka-{broker.node_id}", brokers.command(broker, installation))
            self.kafka.append(process)
            process.start()
        await brokers.wait_ready(self.bootstrap, _READY_S, brokers=len(self.kafka))

    def _clickhouse_command(self) -> list[str]:
        command = [sys.executable, "-m", "embedded.clickhouse", "--port", str(self._clickhouse_port)]
        return [*command, "--data-dir", str(self.directory / "clickhouse")]

    def _stage(self, stage: str) -> Process:
        self._stages += 1
        name = f"{stage}-{self._stages}"
        environ = {"EVENTPUSH_DATA_DIR": str(self.directory / name)}
        if stage != "ingress":
            self._metrics_ports[name] = free_port()
            environ[f"EVENTPUSH_{stage.upper()}_METRICS_PORT"] = str(self._metrics_ports[name])
        return self._process(name, [sys.executable, "-m", "tests.faults.points", stage], environ)

    def _process(self, name: str, command: list[str], environ: dict[str, str] | None = None) -> Process:
        return Process(name, command, os.environ | self._environ | (environ or {}), self.directory)


async def _answers_200(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
