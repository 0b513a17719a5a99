"""What the sink's tests on real Kafka and ClickHouse share: a process, a producer of its topics, questions."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiokafka
import msgspec

from embedded import preflight
from runtime.platform import settings as settings_module
from runtime.platform.settings import Settings
from schemas import topics
from tests.integration.quiet import assert_quiet
from tests.stack import ROOT

DEADLINE_S = 60.0


async def until(what: str, condition: Callable[[], Awaitable[Any]], deadline_s: float = DEADLINE_S) -> Any:
    """Asks until the answer is true, and gives it; fails when the deadline has passed."""
    end = time.monotonic() + deadline_s
    while True:
        if answer := await condition():
            return answer
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.05)


async def ask(url: str, sql: str) -> list[dict[str, Any]]:
    """The rows that ClickHouse answers with."""
    numbers = {"output_format_json_quote_64bit_integers": "0"}
    asking = aiohttp.ClientSession()
    async with asking as session, session.post(url, params=numbers, data=f"{sql} FORMAT JSONEachRow") as response:
        text = await response.text()
        assert response.status == 200, text
        return [json.loads(line) for line in text.splitlines()]


async def execute(url: str, sql: str) -> None:
    """Runs a statement that answers nothing."""
    async with aiohttp.ClientSession() as session, session.post(url, data=sql) as response:
        assert response.status == 200, await response.text()


@dataclass
class SinkHarness:
    """One Kafka, one ClickHouse, and sinks between them."""

    kafka: str
    clickhouse: str
    work_dir: Path
    metrics_port: int = field(default_factory=lambda: preflight.free_ports(1)[0])

    @property
    def environ(self) -> dict[str, str]:
        return {
            "EVENTPUSH_KAFKA_BOOTSTRAP": self.kafka,
            "EVENTPUSH_CLICKHOUSE_URL": self.clickhouse,
            "EVENTPUSH_DATA_DIR": str(self.work_dir),
            "EVENTPUSH_TOPIC_PARTITIONS": "2",
            "EVENTPUSH_SINK_METRICS_PORT": str(self.metrics_port),
            "EVENTPUSH_SINK_LINGER_MS": "20",
        }

    @property
    def settings(self) -> Settings:
        return settings_module.load(self.environ)

    def start(self, *points: str, **environ: str) -> subprocess.Popen[bytes]:
        """A sink, killing itself at the points; its log goes to the work directory."""
        with (self.work_dir / "sink.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.integration.sink_process", *points],
                cwd=ROOT,
                env=os.environ | self.environ | environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @contextmanager
    def running(self, *, allowed: str | None = None, **environ: str) -> Any:
        """Run a sink for the block; it must stop cleanly and log nothing above INFO that `allowed` does not match."""
        log = self.work_dir / "sink.log"
        start = log.stat().st_size if log.exists() else 0
        process = self.start(**environ)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert_quiet(log, start=start, allowed=allowed)
        finally:
            process.kill()
            process.wait()

    async def dies_at(self, point: str) -> None:
        """Runs a sink until it kills itself at the point."""
        process = self.start(point)
        try:
            status = await asyncio.wait_for(asyncio.to_thread(process.wait), DEADLINE_S)
            assert status == -signal.SIGKILL, f"it ended with {status}"
        finally:
            process.kill()

    async def publish(
        self, structs: Sequence[msgspec.Struct | bytes], topic: str = topics.EVENTS, at_once: int = 100
    ) -> None:
        """Publish as the stream stage does: transactions, each a gap in the offsets; all into partition 0."""
        async with self.producer() as producer:
            for i in range(0, len(structs), at_once):
                async with producer.transaction():
                    sent = [
                        await producer.send(
                            topic, s if isinstance(s, bytes) else msgspec.json.encode(s), key=b"imei", partition=0
                        )
                        for s in structs[i : i + at_once]
                    ]
                    await asyncio.gather(*sent)

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self.kafka, transactional_id="streams-in-a-test", compression_type="lz4", linger_ms=2
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def read_all(self, topic: str) -> list[dict[str, Any]]:
        """Everything that a `read_committed` reader sees on the topic."""
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            partitions = [aiokafka.TopicPartition(topic, n) for n in range(2)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            seen = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    seen += [json.loads(record.value) for record in records]
            return seen
        finally:
            await consumer.stop()

    async def counts(self, imei: str) -> tuple[int, int]:
        """Rows of a device in the view, and in the table without FINAL, which would show a token that failed."""
        where = f"WHERE imei = '{imei}'"
        (view,) = await ask(self.clickhouse, f"SELECT toInt32(count()) AS n FROM telematics.events {where}")
        (store,) = await ask(self.clickhouse, f"SELECT toInt32(count()) AS n FROM telematics.events_store {where}")
        return view["n"], store["n"]

    async def stored(self, imei: str, rows: int) -> None:
        """Waits until the device has that many rows."""

        async def enough() -> bool:
            return (await self.counts(imei))[0] >= rows

        await until(f"{rows} rows of {imei}", enough)
