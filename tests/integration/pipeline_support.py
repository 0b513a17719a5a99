"""`eventpush` as people run it: commands that end, and processes that stay."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from embedded import preflight
from tests.integration.quiet import assert_quiet
from tests.stack import ROOT, ClickHouse, Kafka

T = TypeVar("T")

READY_S = 120.0  # the machine may be busy with other tests
COMMAND_S = 300.0


def eventpush(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "eventpush", *arguments],
        env=clean_environ(environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


def until(found: Callable[[], T | None], what: str, timeout_s: float = READY_S) -> T:
    """What `found` gives as soon as it is not None; fails after the timeout."""
    deadline = time.monotonic() + timeout_s
    while (value := found()) is None:
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
    return value


def clean_environ(environ: dict[str, str]) -> dict[str, str]:
    """The environment with these settings and no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EVENTPUSH_")} | environ


def post(url: str, body: bytes, headers: dict[str, str]) -> Any:
    """Send a body; the response, whose status is a success."""
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - http, ours
    return urllib.request.urlopen(request, timeout=30)  # noqa: S310


@dataclass
class Pipeline:
    """Ingress, stream worker and sink, each a process of its own, before a Kafka and a ClickHouse."""

    kafka_bootstrap: str
    clickhouse_url: str
    home: Path
    environ: dict[str, str] = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # of each request

    def __post_init__(self) -> None:
        ports = preflight.free_ports(4)
        names = ("INGRESS_PORT", "INGRESS_METRICS_PORT", "STREAMS_METRICS_PORT", "SINK_METRICS_PORT")
        self.environ = {f"EVENTPUSH_{name}": str(port) for name, port in zip(names, ports, strict=True)}
        self.environ |= {
            "EVENTPUSH_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "EVENTPUSH_CLICKHOUSE_URL": self.clickhouse_url,
            "EVENTPUSH_DATA_DIR": str(self.home / "data"),
        }
        self.url = f"http://127.0.0.1:{ports[0]}/api/events"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command with the pipeline's settings."""
        return eventpush(self.environ, *arguments)

    def start(self) -> None:
        """Make topics, start the three, and wait until `eventpush check` finds all well."""
        assert self.run("topics").returncode == 0
        for name in ("sink", "streams", "ingress"):
            self.start_process(name)
        until(self._all_well, f"everything ready (logs in {self.home})")

    def start_process(self, name: str, **environ: str) -> None:
        """Start one of the three, with further settings."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "eventpush", name],
                env=clean_environ(self.environ | environ),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End the three at once; those that have ended already are no error."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()

    def _all_well(self) -> bool | None:
        findings = json.loads(self.run("check", "--json").stdout)
        return all(finding["state"] == "ok" for finding in findings) or None

    def stop(self) -> None:
        """End the three in good order, and surely."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        try:
            for name, process in self.processes.items():
                assert process.wait(30) == 0, f"{name} ended with {process.returncode}"
                assert_quiet(self.home / f"{name}.log")
        finally:
            self.kill()

    def post(self, event: dict[str, Any]) -> str:
        """Send an event; the receipt id of its 200."""
        body = json.dumps(event).encode()
        with post(self.url, body, {"Content-Type": "application/json"} | self.headers) as answer:
            assert answer.status == 200
            assert json.load(answer) == {"status": "success", "message": "Event received successfully."}
            return str(answer.headers["X-Receipt-Id"])

    def select(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [json.loads(line) for line in self.execute(f"{query} FORMAT JSONEachRow").splitlines()]

    def execute(self, statement: str) -> bytes:
        """ClickHouse's answer to a statement."""
        url = f"{self.clickhouse_url}/?output_format_json_quote_64bit_integers=0"
        with post(url, statement.encode(), {}) as answer:
            return bytes(answer.read())

    def insert(self, table: str, native: bytes) -> None:
        """Insert rows in ClickHouse's native format."""
        query = urllib.parse.quote(f"INSERT INTO {table} FORMAT Native")
        post(f"{self.clickhouse_url}/?query={query}", native, {})

    def row(self, condition: str, table: str = "telematics.events") -> dict[str, Any]:
        """The one row that there will be soon."""
        query = f"SELECT * FROM {table} WHERE {condition}"
        (row,) = until(lambda: self.select(query) or None, f"a row where {condition}")
        return row

    def messages(self, *arguments: str, count: int) -> list[dict[str, Any]]:
        """The first messages of a topic, by `eventpush tail`."""
        result = self.run("tail", *arguments, "--from-beginning", "--max", str(count), "--json")
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]


@contextmanager
def own_pipeline(home: Path, **environ: str) -> Iterator[Pipeline]:
    """A pipeline with a Kafka and a ClickHouse of its own, all in the directory `home`, with further settings."""
    kafka, clickhouse = Kafka.at(home / "kafka"), ClickHouse(home / "clickhouse")
    running = Pipeline(kafka.bootstrap, clickhouse.url, home)
    running.environ |= environ
    try:
        kafka.start()
        clickhouse.start()
        running.start()
        yield running
        running.stop()
    finally:
        running.kill()
        kafka.end_if_running()
        clickhouse.end_if_running()
