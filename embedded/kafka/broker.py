"""A broker as a child process: prepare (jars, configuration, storage), the command to start, wait until it is ready."""

import asyncio
import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from embedded import preflight
from embedded.kafka import jars as jar_cache
from embedded.kafka import java
from embedded.kafka.config import Broker, log4j_properties, server_properties
from runtime.errors import Problem

#: Told of what takes a while: one readable line each.
OnLine = Callable[[str], None]

_FORMAT_TIMEOUT_S = 120
_POLL_S = 0.1


@dataclass(frozen=True)
class Installation:
    """What every broker of this machine shares: a Java, the checked jars, and perhaps a cache of loaded classes."""

    java: java.Java
    jars: tuple[Path, ...]
    aot_cache: Path

    @property
    def class_path(self) -> str:
        """The jars as Java wants them."""
        return ":".join(map(str, self.jars))


def install(jars_dir: Path, on_line: OnLine = lambda _: None) -> Installation:
    """Finds Java and fetches the jars that are missing; raises `Problem` (see `java.find`, `jars.fetch`)."""
    found = java.find()
    jars = jar_cache.locked()
    paths = jar_cache.fetch(jars, jars_dir.absolute(), _throttled(on_line))
    return Installation(found, tuple(paths), jars_dir.absolute() / f"kafka-{jars[0].coordinate.split(':')[2]}.aot")


def prepare(broker: Broker, installation: Installation, *, check_ports: bool = True) -> None:
    """
    Writes the configuration and formats the storage, once; what is there stays.

    Raises `Problem` for a taken port, a directory that is not writable, a full disk, storage that Kafka refuses.
    """
    preflight.require_writable(broker.home, "make it writable, or choose another EVENTPUSH_DATA_DIR")
    preflight.require_space(broker.home)
    if check_ports:
        for port, use in ((broker.port, "Kafka"), (broker.controller_port, "Kafka's controller")):
            preflight.require_free_port(
                broker.host, port, use, "stop what uses it, or choose another port with EVENTPUSH_KAFKA_BOOTSTRAP"
            )
    broker.logs_dir.mkdir(exist_ok=True)
    broker.properties_file.write_text(server_properties(broker))
    broker.log4j_file.write_text(log4j_properties(broker))
    if not (broker.data_dir / "meta.properties").exists():
        _format(broker, installation)


def command(broker: Broker, installation: Installation, *, record_aot: bool = False) -> list[str]:
    """The broker's command line: Java itself, no shell around it. SIGTERM stops it in good order (status 143)."""
    return [
        str(installation.java.launcher),
        f"-Xmx{broker.heap_mb}m",
        f"-Xms{min(broker.heap_mb, 256)}m",
        "-XX:+UseSerialGC",  # least memory and start-up; with a heap this small its pauses are milliseconds
        "-XX:+ExitOnOutOfMemoryError",
        *_aot_options(installation, record=record_aot),
        *installation.java.quiet_options,
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={broker.log4j_file.absolute()}",
        "-cp",
        installation.class_path,
        "kafka.Kafka",
        str(broker.properties_file.absolute()),
    ]


async def wait_ready(bootstrap: str, timeout_s: float = 60.0, *, brokers: int = 1) -> None:
    """Waits until Kafka answers and at least `brokers` of it are up; raises `Problem` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if await _brokers_up(bootstrap) >= brokers:
            return
        await asyncio.sleep(_POLL_S)
    raise Problem(f"Kafka at {bootstrap} was not ready within {timeout_s:g} s", "see the broker's log for the reason")


async def _brokers_up(bootstrap: str) -> int:
    host, port = bootstrap.split(",", maxsplit=1)[0].rsplit(":", 1)
    try:  # a plain connection first: aiokafka logs each attempt that fails as an error
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
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Problem(
            f"Kafka cannot prepare {broker.data_dir} (status {done.returncode}: {said[-1].strip()})",
            f"mend that; or, if its data may go, remove {broker.home}",
        )


def _aot_options(installation: Installation, *, record: bool) -> list[str]:
    if record:
        return [f"-XX:AOTCacheOutput={installation.aot_cache}"]
    return [f"-XX:AOTCache={installation.aot_cache}"] if installation.aot_cache.exists() else []


def _throttled(on_line: OnLine) -> jar_cache.OnProgress:
    """One line for every tenth of the download."""
    shown = -1

    def on_progress(done: int, total: int, jars_done: int, jars: int) -> None:
        nonlocal shown
        tenth = done * 10 // total
        if tenth > shown:
            shown = tenth
            on_line(f"downloading Kafka: {jars_done} of {jars} jars, {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return on_progress
