"""`eventpush up` as an operator runs it: one command starts everything, and nothing is left however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtime.platform import clickhouse_key
from tests.stack import ROOT, up_environ

READY_S = 180.0  # the machine may be busy with other tests
END_S = 60.0
EVENT = {
    "Event": "overspeed",
    "Changes": 50,
    "Device_Time": "2024-06-28T17:52:13.000000+0000",
    "IMEI": "350612075195931",
    "Server_Time": "2024-06-28T18:49:45.000000+0000",
    "Coordinates": "22.927968,75.533275",
    "Location": "Indore",
}


class Up:
    """A running `eventpush up`, its lines, and its children's process ids."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.data_dir = Path(environ["EVENTPUSH_DATA_DIR"])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eventpush", "up"],
            env=os.environ | environ,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(output)

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + READY_S
        while not any(re.search(pattern, line) for line in list(self.lines)):
            assert time.monotonic() < deadline, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.1)

    def children(self) -> dict[str, psutil.Process]:
        files = (self.data_dir / "run").glob("*.pid")
        return {file.stem: psutil.Process(json.loads(file.read_text())["pid"]) for file in files}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(END_S)
        finally:
            self.process.kill()
            self._reader.join()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Free ports and a temporary data directory."""
    return up_environ(tmp_path / "data")


@pytest.fixture
def started(environ: dict[str, str]) -> Iterator[list[Up]]:
    """Stop everything that a test has started."""
    ups: list[Up] = []
    yield ups
    for up in ups:
        if up.process.poll() is None:
            up.end(signal.SIGTERM)


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    headers = headers or ({"Content-Type": "application/json"} if body else {})
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - http, ours
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return answer.status, answer.read().decode()


def test_up_from_start_to_end(environ: dict[str, str], started: list[Up]) -> None:
    """One command starts all; an event becomes a row; a second command is refused; SIGTERM leaves nothing running;
    the data is there after the next start; kill -9 of the supervisor leaves nothing running either.
    """
    up = Up(environ)
    started.append(up)
    up.wait_for("Ctrl-C stops everything")
    up.wait_for("console is ready")
    assert set(up.children()) == {"kafka", "clickhouse", "ingress", "streams", "sink", "console"}
    console = f"http://127.0.0.1:{environ['EVENTPUSH_CONSOLE_PORT']}"
    assert any(line.split() == ["console", console] for line in up.lines)
    assert ask(f"{console}/")[0] == 200

    url = f"http://127.0.0.1:{environ['EVENTPUSH_INGRESS_PORT']}/api/events"
    assert ask(url, json.dumps(EVENT).encode())[0] == 200
    wait_for_rows(environ, 1)

    again = subprocess.run(
        [sys.executable, "-m", "eventpush", "up"],
        env=os.environ | environ, cwd=ROOT, capture_output=True, text=True, timeout=END_S, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    assert re.fullmatch(
        rf"eventpush: eventpush is already running on .* \(process {up.process.pid}\): .*\n", again.stderr
    )

    children = up.children().values()
    assert up.end(signal.SIGTERM) == 0, up.lines
    _gone, alive = psutil.wait_procs(children, timeout=END_S)
    assert not alive
    assert not any("killed" in line for line in up.lines), up.lines

    up = Up(environ)
    started.append(up)
    up.wait_for("Ctrl-C stops everything")
    wait_for_rows(environ, 1)
    children = up.children().values()
    up.end(signal.SIGKILL)
    if sys.platform.startswith("linux"):
        _gone, alive = psutil.wait_procs(children, timeout=END_S)
        assert not alive


def wait_for_rows(environ: dict[str, str], count: int) -> None:
    query = "SELECT%20count()%20FROM%20telematics.events"
    deadline = time.monotonic() + END_S
    key = clickhouse_key.path(Path(environ["EVENTPUSH_DATA_DIR"]))
    assert key.stat().st_mode & 0o777 == 0o600
    headers = dict(line.split(": ") for line in key.read_text().splitlines())
    while (found := int(ask(f"{environ['EVENTPUSH_CLICKHOUSE_URL']}/?query={query}", headers=headers)[1])) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
