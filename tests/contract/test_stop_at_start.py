"""SIGTERM ends `eventpush` from its first moment, also as process 1 of a container, where the kernel has no default."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_DEADLINE_S = 20.0
_KILLED_BY_SIGTERM = 128 + signal.SIGTERM
#: A process 1 like a container's; unshare dies with the test, and process 1 with unshare.
_AS_PROCESS_1 = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def _can_unshare() -> bool:
    if shutil.which(_AS_PROCESS_1[0]) is None:
        return False
    return subprocess.run([*_AS_PROCESS_1, "true"], capture_output=True, check=False).returncode == 0


needs_a_pid_namespace = pytest.mark.skipif(not _can_unshare(), reason="this machine lets no test make a PID namespace")


@pytest.fixture(params=["ingress", "streams", "sink", "migrate"])
def process_1(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command as process 1 of a PID namespace, with unreachable servers; and its pid as seen from here."""
    nowhere = {"EVENTPUSH_KAFKA_BOOTSTRAP": "127.0.0.1:1", "EVENTPUSH_CLICKHOUSE_URL": "http://127.0.0.1:1"}
    outside = subprocess.Popen(
        [*_AS_PROCESS_1, sys.executable, "-m", "eventpush", request.param],
        env={"PATH": os.environ["PATH"], "EVENTPUSH_DATA_DIR": str(tmp_path), **nowhere},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        _wait_until(lambda: bool(children.read_text().split()))
        yield outside, int(children.read_text().split()[0])
    finally:
        outside.kill()
        outside.wait()


@needs_a_pid_namespace
def test_process_1_handles_sigterm_before_it_imports_the_service(
    process_1: tuple[subprocess.Popen[bytes], int],
) -> None:
    """SIGTERM is handled while no package's library is loaded, and ends the process at once with status 143."""
    outside, pid = process_1
    loaded = ""

    def handles_sigterm() -> bool:
        nonlocal loaded
        before = Path(f"/proc/{pid}/maps").read_text()  # first, as the process goes on
        if handles := _handles_sigterm(pid):
            loaded = before
        return handles

    _wait_until(handles_sigterm)
    os.kill(pid, signal.SIGTERM)
    assert outside.wait(_DEADLINE_S) == _KILLED_BY_SIGTERM
    assert "site-packages" not in loaded


def _handles_sigterm(pid: int) -> bool:
    """Return whether the process has a handler: a bit of SigCgt, see proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {_DEADLINE_S:g} s"
        time.sleep(0.001)
