"""A broker as a child process: prepare configuration and storage, build its command line, wait until it is ready."""

import asyncio
import logging
import subprocess
import time
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from embedded import preflight
from embedded.kafka.config import Broker, log4j_properties, server_properties
from embedded.kafka.installation import Installation
from runtime.platform import directories
from runtime.platform.errors import OperatorError

_FORMAT_TIMEOUT_S = 120
_POLL_S = 0.1


def prepare(broker: Broker, installation: Installation, *, check_ports: bool = True) -> None:
    """Write the configuration and format new storage; existing data is kept.

    Raise `OperatorError` for a port in use, a directory that is not writable, a full disk, or if formatting fails.
    """
    directories.require_writable(broker.home)
    preflight.require_space(broker.home)
    if check_ports:
        for port, use in ((broker.port, "Kafka"), (broker.controller_port, "Kafka's controller")):
            preflight.require_free_port(
                broker.host,
                port,
                use,
                "stop what uses it, or choose another port with EVENTPUSH_KAFKA_BOOTSTRAP",
            )
    broker.logs_dir.mkdir(exist_ok=True)
    broker.properties_file.write_text(server_properties(broker))
    broker.log4j_file.write_text(log4j_properties(broker))
    if not (broker.data_dir / "meta.properties").exists():
        _format(broker, installation)


def command(broker: Broker, installation: Installation, *, recorded_to: Path | None = None) -> list[str]:
    """Return the broker's command line: Java itself, without a shell. SIGTERM stops it cleanly (status 143).

    With `recorded_to`, Java writes a cache of its loaded classes there when it stops.
    """
    return [
        str(installation.java.launcher),
        f"-Xmx{broker.heap_mb}m",
        f"-Xms{min(broker.heap_mb, 256)}m",
        "-XX:+UseSerialGC",  # least memory and fastest start; pauses are milliseconds with a heap this small
        "-XX:+ExitOnOutOfMemoryError",
        *([f"-XX:AOTCacheOutput={recorded_to}"] if recorded_to else installation.aot_options),
        *installation.java.quiet_options,
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={broker.log4j_file.absolute()}",
        "-cp",
        installation.class_path,
        "kafka.Kafka",
        str(broker.properties_file.absolute()),
    ]


async def wait_ready(bootstrap: str, timeout_s: float = 60.0, *, brokers: int = 1) -> None:
    """Wait until at least `brokers` brokers are up; raise `OperatorError` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if await brokers_up(bootstrap) >= brokers:
            return
        await asyncio.sleep(_POLL_S)
    raise OperatorError(
        f"Kafka at {bootstrap} was not ready within {timeout_s:g} s", "see the broker's log for the reason"
    )


async def brokers_up(bootstrap: str) -> int:
    """Return how many brokers the cluster reports; 0 if it does not answer."""
    host, port = bootstrap.split(",", maxsplit=1)[0].rsplit(":", 1)
    try:  # a plain connection first: aiokafka logs every failed attempt as an error
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    except OSError:
        return 0
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=2_000)
    quiet = logging.getLogger("aiokafka")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        await client.start()
        return len((await client.describe_cluster())["brokers"])
    except (KafkaError, OSError, TimeoutError, KeyError):
        return 0
    finally:
        await client.close()
        quiet.setLevel(level)


def _format(broker: Broker, installation: Installation) -> None:
    arguments = [str(installation.java.launcher), "-XX:TieredStopAtLevel=1", *installation.java.quiet_options]
    arguments += [f"-Dlog4j2.configurationFile={broker.log4j_file.absolute()}", "-cp", installation.class_path]
    arguments += ["kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", broker.cluster_id]
    arguments += ["--config", str(broker.properties_file.absolute())]
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FORMAT_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise OperatorError(
            f"Kafka cannot format {broker.data_dir} (status {done.returncode}: {output[-1].strip()})",
            f"fix the cause, or remove {broker.home} if its data is not needed",
        )
