"""The embedded ClickHouse on a free port, in its own process; import `embedded_clickhouse` where a test needs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

READY_S = 30
END_S = 30


@dataclass
class EmbeddedClickHouse:
    """A server process: its address, and how to end it and start it again on the same data."""

    data_dir: Path
    arguments: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start, and wait for the line that says that connections are accepted."""
        command = [sys.executable, "-m", "embedded.clickhouse", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), *self.arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | self.environ, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " ready on http://" in line, line
        self.port = int(line.split(" ready on http://127.0.0.1:")[1].split()[0])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(END_S)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="module")
def embedded_clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """One server for the tests of a module."""
    server = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    if server.process is not None:
        server.end()
