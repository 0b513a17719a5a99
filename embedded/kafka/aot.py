"""A quick start: Java's ahead-of-time cache (JEP 483, 514, 515), recorded once by running a broker that has no data.

Starting Kafka costs 5 s of processor time without it and 2 s with it (two cores, Java 25): loading and linking 8,000
classes. The cache fits one Java and one list of jars; where it cannot be made, Kafka starts as it always did.
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
from embedded.kafka.installation import Installation, OnLine
from embedded.tether import tethered
from runtime.platform.errors import OperatorError

_READY_S = 60
_WRITE_S = 120


def ensure_cache(installation: Installation, on_line: OnLine = lambda _: None) -> None:
    """Records the cache when this Java can use one and there is none; takes some 20 s, once. Raises nothing."""
    if not installation.java.has_aot_cache or installation.aot_cache.exists():
        return
    on_line("teaching Java to start Kafka quickly (once, some 20 s)")
    try:
        with tempfile.TemporaryDirectory(prefix=".record-", dir=installation.jars_dir) as directory:
            _record(installation, Path(directory))
    except (OperatorError, OSError, subprocess.SubprocessError) as error:
        on_line(f"that did not work, and is not needed ({error})")


def _record(installation: Installation, directory: Path) -> None:
    port, controller_port = preflight.free_ports(2)
    broker = Broker(directory / "broker", port=port, controller_port=controller_port)
    recorded = directory / "recorded.aot"
    brokers.prepare(broker, installation)
    process = subprocess.Popen(
        tethered(brokers.command(broker, installation, recorded_to=recorded)),
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
    """Does once what the stack does at its start, so that its classes are in the cache: a topic, a transaction."""
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
