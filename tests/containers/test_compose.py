"""The Compose file as users run it, and what happens when its containers stop, die or multiply.

The tests share one pipeline and run in this order.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.containers.docker_cli import (
    PROJECT,
    ROOT,
    SERVICES,
    compose,
    containers_of,
    docker,
    fetch,
    inspect,
    is_healthy,
    is_ready,
    processes_of,
    run,
    wait_until,
)
from tests.sse_reader import SseReader

pytestmark = pytest.mark.containers

OURS = ("ingress", "streams", "sink")
LASTING = ("kafka", "clickhouse", *OURS)
ONCE = ("topics", "migrate")
HEALTHY_S = 180.0
KILLED = 137
#: What the containers logged, for who looks into a failure.
LOGS = ROOT / ".containers" / "logs"
README = (ROOT / "README.md").read_text()
LOGIN = {"X-ClickHouse-User": "eventpush", "X-ClickHouse-Key": "eventpush"}
#: Where a client on this machine finds the published ports.
OUTSIDE = {
    "EVENTPUSH_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "EVENTPUSH_CLICKHOUSE_URL": "http://127.0.0.1:8123",
    "EVENTPUSH_CLICKHOUSE_USER": "eventpush",
    "EVENTPUSH_CLICKHOUSE_PASSWORD": "eventpush",
}
Figure = Callable[[str], None]


def readme_command(begin: str) -> str:
    """Return the README's first command that begins so, in a block or in a sentence."""
    (command, *_) = re.findall(rf"^{begin}.*$|(?<=`){begin}[^`]*(?=`)", README, re.MULTILINE)
    return str(command)


def as_typed(command: str, timeout_s: float = 120) -> str:
    """Return what a command line prints in a shell."""
    return run("bash", "-euc", command, timeout_s=timeout_s)


def anonymous_volumes() -> set[str]:
    """Return the volumes without a name."""
    return set(docker("volume", "ls", "--quiet", "--filter=label=com.docker.volume.anonymous").split())


def rows() -> int:
    """Return the number of stored events, 0 while ClickHouse does not answer."""
    try:
        return int(fetch("http://127.0.0.1:8123/", b"SELECT count() FROM telematics.events", LOGIN))
    except OSError:
        return 0


def all_healthy() -> bool:
    """Return whether every container that should last is there and healthy."""
    found = [containers_of(service) for service in LASTING]
    return all(found) and all(is_healthy(container) for containers in found for container in containers)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the engine reports of the drills' containers, one JSON object a line."""
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    command = ["docker", "events", "--filter=type=container", "--format={{json .}}"]
    command += [f"--filter=label=com.docker.compose.project={PROJECT}"]
    command += [f"--filter=event={event}" for event in ("start", "die", "health_status")]
    with path.open("w") as file, subprocess.Popen(command, stdout=file) as events:
        yield path
        events.terminate()


@pytest.fixture(scope="module", autouse=True)
def volumes_before(history: Path, figure: Figure) -> Iterator[set[str]]:
    """The README's command, until all are healthy; the anonymous volumes that were there before it."""
    compose("down", "--volumes", "--remove-orphans")  # of an earlier run that was cut off
    others = anonymous_volumes()
    begin = time.monotonic()
    try:
        as_typed(readme_command("docker compose up"), timeout_s=580)
        wait_until(all_healthy, HEALTHY_S, "that all are healthy")
        figure(f"`docker compose up` with a built image, until all are healthy: {time.monotonic() - begin:.0f} s")
        yield others
    finally:
        LOGS.mkdir(parents=True, exist_ok=True)
        for name in LASTING + ONCE:
            (LOGS / f"{name}.log").write_text(compose("logs", "--no-color", "--timestamps", name))
        compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(autouse=True)
def healthy_before(volumes_before: set[str]) -> None:
    """Each drill begins with healthy containers."""
    wait_until(all_healthy, HEALTHY_S, "that all are healthy")


def moments(history: Path, service: str, what: str) -> list[int]:
    """Return when something happened to a service's containers, in nanoseconds."""
    events: list[dict[str, Any]] = [json.loads(line) for line in history.read_text().splitlines()]
    return [
        event["timeNano"]
        for event in events
        if event["Actor"]["Attributes"]["com.docker.compose.service"] == service and event["Action"] == what
    ]


def test_services_start_in_order(history: Path, figure: Figure) -> None:
    """Topics wait for a healthy Kafka, tables for a healthy ClickHouse, the services for what they need."""
    healthy = {name: moments(history, name, "health_status: healthy")[0] for name in LASTING}
    started = {name: moments(history, name, "start")[0] for name in LASTING + ONCE}
    done = {name: moments(history, name, "die")[-1] for name in ONCE}
    assert healthy["kafka"] < started["topics"] < done["topics"] < min(started[name] for name in OURS)
    assert healthy["clickhouse"] < started["migrate"] < done["migrate"] < started["sink"]
    begin = min(started.values())
    ordered = sorted(healthy, key=lambda name: healthy[name])
    figure("healthy after: " + ", ".join(f"{name} {(healthy[name] - begin) / 1e9:.1f} s" for name in ordered))
    assert {inspect(containers_of(name)[0])["State"]["ExitCode"] for name in ONCE} == {0}


def test_the_commands_of_the_readme_work() -> None:
    """The sample event is accepted and is one row for the README's SELECT with its password; the account adds up."""
    answer = as_typed(readme_command("curl http://127.0.0.1:8080/api/events"))
    assert json.loads(answer) == {"status": "success", "message": "Event received successfully."}
    select = readme_command("curl -u ")
    wait_until(lambda: as_typed(select).strip() == "1", 30, "one row")
    assert "sink eventpush account" in readme_command("docker compose exec")
    as_typed(readme_command("docker compose exec"))


def test_containers_have_no_rights_that_they_do_not_need(figure: Figure) -> None:
    """Every process of ours is an ordinary user without a capability, can gain none, and cannot write to its image."""
    as_root = []
    for service in LASTING:
        (container,) = containers_of(service)
        processes = processes_of(container)
        assert processes
        as_root += [f"{service}: {process['Name']}" for process in processes if process["Uid"].split()[0] == "0"]
        if service in OURS:
            assert inspect(container)["HostConfig"]["ReadonlyRootfs"]
            assert {process["Uid"].split()[0] for process in processes} == {"10001"}
            assert {int(process[held], 16) for process in processes for held in ("CapEff", "CapPrm", "CapBnd")} == {0}
            assert {process["NoNewPrivs"] for process in processes} == {"1"}
            refused = docker("exec", container, "sh", "-c", "touch /opt/eventpush/x /etc/x /x 2>&1; true")
            assert refused.count("Read-only file system") == 3, refused
    figure("processes as root: " + (", ".join(as_root) or "none"))


def test_no_file_limit_is_asked_for(figure: Figure) -> None:
    """The containers run with the limit of open files that the engine has, however low."""
    limits = {service: docker("exec", containers_of(service)[0], "sh", "-c", "ulimit -Hn") for service in LASTING}
    assert len(set(limits.values())) == 1
    figure(f"open files, hard limit: {limits['clickhouse']}")


def test_the_health_check_of_kafka_is_cheap(figure: Figure) -> None:
    """The check takes no time worth naming: it starts no Java."""
    (container,) = containers_of("kafka")
    check = SERVICES["kafka"]["healthcheck"]["test"][1:]
    script = f"time ({subprocess.list2cmdline(['exec', 'bash', '-c', '$CHECK'])})"
    shown = docker("exec", f"--env=CHECK={check[2].replace('$$', '$')}", container, "bash", "-c", f"({script}) 2>&1")
    minutes_and_seconds = dict(re.findall(r"^(user|sys)\s+\d+m([\d.]+)s$", shown, re.MULTILINE))
    cpu_s = sum(map(float, minutes_and_seconds.values()))
    figure(f"Kafka's health check: {cpu_s:.3f} CPU-seconds")
    assert cpu_s < 0.5


def test_a_stage_started_with_docker_run_is_healthy_when_it_is_ready() -> None:
    """`docker run eventpush streams` needs no health check of its own, and leaves no volume behind."""
    before = anonymous_volumes()
    image = SERVICES["topics"]["image"]
    network = f"--network={PROJECT}_default"
    container = docker("run", "--detach", network, "--env=EVENTPUSH_KAFKA_BOOTSTRAP=kafka:19092", image, "streams")
    try:
        wait_until(lambda: is_healthy(container), 120, "that the container is healthy")
        docker("stop", container)
        assert inspect(container)["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", container)
    assert anonymous_volumes() == before


class Simulation:
    """A simulated fleet in a process of its own, on the published ports."""

    def __init__(self, seed: int, seconds: float, port: int = 8080) -> None:
        self.stored_before = rows()
        fleet = ["--devices=50", "--rate=200", f"--seed={seed}", f"--duration={seconds}"]
        url = f"--url=http://127.0.0.1:{port}/api/events"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eventpush", "simulate", "--json", *fleet, url],
            cwd=ROOT,
            env=os.environ | OUTSIDE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_under_way(self) -> None:
        """Wait for rows of this simulation."""
        wait_until(lambda: rows() > self.stored_before + 100, 60, "that the simulation has rows")

    def report(self) -> dict[str, Any]:
        """Wait for the end; return the report, in which nothing is lost, doubled or missing."""
        output, errors = self._process.communicate(timeout=240)
        assert self._process.returncode == 0, output + errors
        report: dict[str, Any] = json.loads(output)
        assert (report["lost"], report["doubled"], report["doubled_messages"]) == (0, 0, 0), report
        assert report["unacknowledged"] == 0
        assert report["drained"], report
        return report

    def kill(self) -> None:
        """End it, if it runs."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def simulation(seed: int, seconds: float, port: int = 8080) -> Iterator[Simulation]:
    """A simulated fleet that is gone at the end."""
    running = Simulation(seed, seconds, port)
    try:
        yield running
    finally:
        running.kill()


def crash(container: str) -> None:
    """Kill a container's process 1 behind the engine's back: unlike `docker kill`, its restart policy applies."""
    pid = inspect(container)["State"]["Pid"]
    program = f"import os; os.kill({pid}, 9)"
    image = SERVICES["topics"]["image"]
    docker("run", "--rm", "--privileged", "--pid=host", "--user=0", "--entrypoint=python", image, "-c", program)


@pytest.mark.parametrize("service", LASTING)
def test_a_killed_container_comes_back_and_nothing_is_lost_or_doubled(service: str, figure: Figure) -> None:
    """SIGKILL under load: the engine restarts it, senders retry, and every event is stored once."""
    (container,) = containers_of(service)
    restarts = inspect(container)["RestartCount"]
    with simulation(seed=100 + LASTING.index(service), seconds=12) as fleet:
        fleet.wait_until_under_way()
        crash(container)
        wait_until(lambda: int(inspect(container)["RestartCount"]) == restarts + 1, 60, "that it is started again")
        back_s = wait_until(lambda: is_healthy(container), HEALTHY_S, "that it is healthy again")
        report = fleet.report()
    other = sum(count for status, count in report["answers"].items() if status != "200")
    figure(
        f"{service} killed under 200 events/s: healthy after {back_s:.1f} s; {report['sent']} events, "
        f"lost {report['lost']}, doubled {report['doubled']}, answers other than 200: {other}"
    )


def test_each_stage_stops_within_its_grace_period_under_load(figure: Figure) -> None:
    """SIGTERM ends it in order, and started again it goes on where it was."""
    took = {}
    with simulation(seed=200, seconds=20) as fleet:
        fleet.wait_until_under_way()
        for service in OURS:
            (container,) = containers_of(service)
            begin = time.monotonic()
            compose("stop", service)
            took[service] = time.monotonic() - begin
            assert inspect(container)["State"]["ExitCode"] == 0
            assert took[service] < float(SERVICES[service]["stop_grace_period"].removesuffix("s"))
            compose("start", service)
        fleet.report()
    figure("SIGTERM under load: " + ", ".join(f"{service} ended in {took[service]:.1f} s" for service in OURS))


def test_stopped_and_started_it_has_what_it_had(figure: Figure) -> None:
    """`docker compose stop` ends every container by itself, and after `start` rows and the pipeline are there."""
    before = rows()
    begin = time.monotonic()
    compose("stop")
    stopped_s = time.monotonic() - begin
    codes = {service: inspect(containers_of(service)[0])["State"]["ExitCode"] for service in LASTING}
    assert KILLED not in codes.values(), codes
    begin = time.monotonic()
    compose("start")
    wait_until(all_healthy, HEALTHY_S, "that all are healthy")
    figure(f"stopped in {stopped_s:.1f} s, started and healthy in {time.monotonic() - begin:.1f} s")
    assert rows() == before
    with simulation(seed=300, seconds=2) as fleet:
        fleet.report()


def partitions_of(worker: str) -> set[str]:
    """Return the partitions that a stream worker has, as its metrics say."""
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9102/metrics').read().decode())"
    shown = docker("exec", worker, "python", "-c", program)
    return set(re.findall(r'^eventpush_streams_complete_through_seconds\{.*partition="(\d+)".*\}', shown, re.MULTILINE))


def share_all_partitions(workers: list[str]) -> bool:
    """Return whether each worker has partitions, and each partition one worker."""
    shares = [partitions_of(worker) for worker in workers]
    return all(shares) and sum(map(len, shares)) == len(set().union(*shares))


def test_two_of_each_share_the_work(figure: Figure) -> None:
    """With a port range for the ingress, `--scale` starts two of each; senders may use either, nothing is doubled."""
    ports = {"INGRESS_PORTS": "8080-8081"}
    two = [f"--scale={service}=2" for service in OURS]
    begin = time.monotonic()
    compose("up", "--detach", *two, environ=ports)
    wait_until(all_healthy, HEALTHY_S, "that all are healthy")
    workers = containers_of("streams")
    assert {service: len(containers_of(service)) for service in OURS} == dict.fromkeys(OURS, 2)
    wait_until(lambda: share_all_partitions(workers), 60, "that both workers have partitions")
    figure(f"scaled to two of each, healthy and shared out: {time.monotonic() - begin:.1f} s")
    assert all(is_ready(f"http://127.0.0.1:{port}/readyz") for port in (8080, 8081))
    with simulation(seed=400, seconds=8) as one, simulation(seed=401, seconds=8, port=8081) as other:
        reports = [fleet.report() for fleet in (one, other)]
    compose("up", "--detach")
    sent = sum(report["sent"] for report in reports)
    figure(f"two of each: {sent} events through both ports, lost 0, doubled 0")


class Client(threading.Thread):
    """A client of the event stream that reconnects with the last id, as a browser does."""

    def __init__(self, token: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[str] = []  # event ids
        self.connections: list[SseReader] = []
        self._token = token

    def run(self) -> None:
        """Read until the program ends."""
        last_id = ""
        while True:
            with (
                contextlib.suppress(OSError, HTTPException),
                SseReader(9104, last_id, token=self._token) as connection,
            ):
                if connection.response.status != 200:
                    raise HTTPException(connection.response.reason)
                self.connections.append(connection)
                for message in connection:
                    self.seen.append(json.loads(message.data)["event_id"])
                    last_id = message.last_id
            time.sleep(0.5)

    def is_connected(self) -> bool:
        """Whether the stream has said from where on it sends."""
        return any(connection.last_id for connection in self.connections)


def test_a_killed_event_stream_is_resumed(figure: Figure) -> None:
    """With `--profile sse`, a client that reconnects gets each event once, though the container is killed meanwhile."""
    created = run(sys.executable, "-m", "eventpush", "token", "new", "drill")
    (token,), (line,) = (re.findall(pattern, created) for pattern in (r"Bearer (\S+)", r"drill sha256:\S+"))
    profile = ("--profile", "sse")
    compose(*profile, "up", "--detach", "sse", environ={"SSE_TOKENS": line})
    try:
        (container,) = compose(*profile, "ps", "--all", "--quiet", "sse").split()
        wait_until(lambda: is_healthy(container), HEALTHY_S, "that the event stream is healthy")
        client = Client(token)
        client.start()
        wait_until(client.is_connected, 30, "that the client is connected")
        before = rows()
        with simulation(seed=500, seconds=10) as fleet:
            fleet.wait_until_under_way()
            crash(container)
            fleet.report()
        stored = rows() - before
        wait_until(lambda: len(client.seen) >= stored, 60, f"that all {stored} events have come")
        assert len(set(client.seen)) == len(client.seen) == stored
        assert len(client.connections) == 2
        figure(f"event stream killed under 200 events/s: the client got each of {stored} events once")
    finally:
        compose(*profile, "rm", "--stop", "--force", "sse")


def test_down_leaves_named_volumes_only(volumes_before: set[str]) -> None:
    """`down` and `up` keep the data, and no container leaves an anonymous volume, Kafka's included."""
    before = rows()
    compose("down")
    left = docker("volume", "ls", "--quiet", f"--filter=label=com.docker.compose.project={PROJECT}").split()
    assert sorted(left) == [f"{PROJECT}_clickhouse", f"{PROJECT}_kafka"]
    assert anonymous_volumes() == volumes_before
    compose("up", "--detach")
    wait_until(all_healthy, HEALTHY_S, "that all are healthy")
    assert rows() == before
