"""Java's ahead-of-time cache (JEP 483, 514, 515) for a fast start, recorded once from a broker without data.

Kafka loads and links 8,000 classes: 5 s of CPU time without the cache, 2 s with it (two cores, Java 25). A cache is
valid for one Java and one list of jars. Without a cache Kafka starts normally, only slower.
"""

import asyncio
import contextlib
import subprocess
import tempfile
import uuid
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from embedded import preflight
from embedded.kafka import broker as brokers
from embedded.kafka.config import Broker
from embedded.kafka.installation import Installation
from embedded.parent_death import with_parent_death_signal
from embedded.terminal_output import LineWriter
from runtime.platform.errors import OperatorError

_READY_S = 60
_WRITE_S = 120


def ensure_cache(installation: Installation, write_line: LineWriter = lambda _: None) -> None:
    """Record the cache if this Java supports it and none exists; takes about 20 s, once. Never raises."""
    if not installation.java.has_aot_cache or installation.aot_cache.exists():
        return
    write_line("recording Java's startup cache for Kafka (once, about 20 s)")
    try:
        with tempfile.TemporaryDirectory(prefix=".record-", dir=installation.jars_dir) as directory:
            _record(installation, Path(directory))
    except (OperatorError, OSError, subprocess.SubprocessError) as error:
        write_line(f"no startup cache was recorded ({error}); Kafka starts without it, only slower")


def _record(installation: Installation, directory: Path) -> None:
    port, controller_port = preflight.free_ports(2)
    broker = Broker(directory / "broker", port=port, controller_port=controller_port)
    recorded = directory / "recorded.aot"
    brokers.prepare(broker, installation)
    process = subprocess.Popen(
        with_parent_death_signal(brokers.command(broker, installation, recorded_to=recorded)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(_exercise(broker.bootstrap))
        process.terminate()
        process.wait(_WRITE_S)
    finally:
        process.kill()
        process.wait()
    for outdated in installation.jars_dir.glob("kafka-*.aot"):
        outdated.unlink(missing_ok=True)
    recorded.replace(installation.aot_cache)


async def _exercise(bootstrap: str) -> None:
    """Create a topic and commit a transaction, as the stack does at start, so that their classes are in the cache."""
    await brokers.wait_ready(bootstrap, _READY_S)
    topic = f"exercise-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(admin.close)
        await admin.create_topics([NewTopic(topic, 1, 1)])
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic, compression_type="lz4")
        await producer.start()
        stack.push_async_callback(producer.stop)
        async with producer.transaction():
            await producer.send_and_wait(topic, b"exercise")
