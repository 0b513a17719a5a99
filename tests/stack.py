"""Real Kafka and real ClickHouse for tests: processes (or containers) that can be killed and started again.

`Kafka` and `ClickHouse` run the embedded ones as users run them; `kafka_container` and `clickhouse_container` give the
same addresses from the official images. Jars are cached in `.eventpush/jars` of the checkout by default.
"""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedded import preflight
from embedded.kafka import broker as brokers
from embedded.kafka.aot import ensure_cache
from embedded.kafka.config import Broker
from embedded.kafka.config import cluster as cluster_of
from embedded.kafka.installation import install
from runtime.platform.errors import OperatorError

ROOT = Path(__file__).parent.parent
JARS_DIR = Path(os.environ.get("EVENTPUSH_JARS_DIR", ROOT / ".eventpush" / "jars"))
READY_S = 90.0
END_S = 30.0
KAFKA_IMAGE = "apache/kafka:4.2.2"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:26.9"


@dataclass
class Process:
    """A child that is started, signalled, and surely gone at the end."""

    process: subprocess.Popen[str] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        assert self.process is not None, "it does not run"
        return self.process.pid

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; its exit status."""
        assert self.process is not None, "it does not run"
        self.process.send_signal(number)
        try:
            return self.process.wait(END_S)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def end_if_running(self) -> None:
        """End it, unless a test has."""
        if self.process is not None:
            self.end()


@dataclass
class Kafka(Process):
    """One broker: `start`, `end(SIGKILL)`, `start` again on the same data and ports."""

    broker: Broker

    @classmethod
    def at(cls, home: Path, **options: Any) -> "Kafka":
        """A broker of its own on free ports."""
        port, controller_port = preflight.free_ports(2)
        return cls(Broker(home, port=port, controller_port=controller_port, **options))

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def spawn(self) -> None:
        """Start it, without waiting."""
        installation = install(JARS_DIR)
        ensure_cache(installation)
        brokers.prepare(self.broker, installation)
        self.process = subprocess.Popen(
            brokers.command(self.broker, installation),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        try:
            run_apart(brokers.wait_ready(self.bootstrap, READY_S))
        except BaseException:
            self.end(signal.SIGKILL)
            raise


@contextlib.contextmanager
def kafka_cluster(home: Path, nodes: int = 3) -> Iterator[list[Kafka]]:
    """Brokers that replicate everything, all but one of which must have a record: `bootstrap_of` them all."""
    ports = preflight.free_ports(2 * nodes)
    members = [Kafka(broker) for broker in cluster_of(home, list(zip(ports[::2], ports[1::2], strict=True)))]
    try:
        for member in members:
            member.spawn()
        run_apart(brokers.wait_ready(members[0].bootstrap, READY_S, brokers=nodes))
        yield members
    finally:
        for member in members:
            if member.process is not None:
                member.end(signal.SIGKILL)  # a node that waits for a quorum that is gone would not stop in time


def bootstrap_of(members: list[Kafka]) -> str:
    """Where clients of a cluster begin."""
    return ",".join(member.bootstrap for member in members)


@dataclass
class ClickHouse(Process):
    """The embedded ClickHouse in a process of its own, on one data directory and one port."""

    data_dir: Path
    port: int = field(default_factory=lambda: preflight.free_ports(1)[0])
    arguments: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait for the line that says that connections are accepted."""
        command = [sys.executable, "-m", "embedded.clickhouse", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), *self.arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | self.environ,
            start_new_session=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " ready on http://" in line, f"the embedded ClickHouse printed {line!r}"


def docker_problem() -> str | None:
    """Why containers cannot be used, or None when a Docker engine answers."""
    with warnings.catch_warnings():
        # Docker's client, when no engine answers, leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            _ask_docker()
        except Exception as error:  # whatever the reason, it is shown
            return (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            gc.collect()
    return None


def _ask_docker() -> None:
    import docker  # noqa: PLC0415 - only when containers are asked for

    client = docker.from_env(timeout=5)
    try:
        client.ping()
    finally:
        client.close()


@contextlib.contextmanager
def kafka_container() -> Iterator[str]:
    """The official image of Kafka; its bootstrap address."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    (port,) = preflight.free_ports(1)
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:29093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:29093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_MESSAGE_MAX_BYTES": str(Broker.message_max_bytes),
    }
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env(name, value)
    with container:
        bootstrap = f"127.0.0.1:{port}"
        run_apart(brokers.wait_ready(bootstrap, READY_S))
        yield bootstrap


@contextlib.contextmanager
def clickhouse_container() -> Iterator[str]:
    """The official image of ClickHouse; its URL."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    from testcontainers.core.wait_strategies import HttpWaitStrategy  # noqa: PLC0415

    container = DockerContainer(CLICKHOUSE_IMAGE).with_exposed_ports(8123)
    container = container.with_env("CLICKHOUSE_SKIP_USER_SETUP", "1")  # else `default` may not come from outside
    with container.waiting_for(HttpWaitStrategy(8123, "/ping")):
        yield f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8123)}"


def run_apart(work: Coroutine[Any, Any, Any]) -> None:
    """Runs a coroutine on a loop of its own in a thread: the test's loop is none of its business."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def free_kafka_port() -> int:
    """A free port whose next one, on which `eventpush up` has Kafka's controller, is free too."""
    while True:
        (port,) = preflight.free_ports(1)
        with contextlib.suppress(OperatorError):
            preflight.require_free_port("127.0.0.1", port + 1, "", "")
            return port


def up_environ(data_dir: Path) -> dict[str, str]:
    """The settings of an `eventpush up` with free ports and a data directory of its own."""
    kafka = free_kafka_port()
    ports = (port for port in preflight.free_ports(8) if port not in {kafka, kafka + 1})
    return {
        "EVENTPUSH_DATA_DIR": str(data_dir),
        "EVENTPUSH_JARS_DIR": str(JARS_DIR.absolute()),
        "EVENTPUSH_KAFKA_BOOTSTRAP": f"127.0.0.1:{kafka}",
        "EVENTPUSH_CLICKHOUSE_URL": f"http://127.0.0.1:{next(ports)}",
        "EVENTPUSH_INGRESS_PORT": str(next(ports)),
        "EVENTPUSH_INGRESS_METRICS_PORT": str(next(ports)),
        "EVENTPUSH_STREAMS_METRICS_PORT": str(next(ports)),
        "EVENTPUSH_SINK_METRICS_PORT": str(next(ports)),
        "EVENTPUSH_CONSOLE_PORT": str(next(ports)),
    }
