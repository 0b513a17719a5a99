"""One supervisor per data directory, and no orphaned processes of an earlier one.

Each running child has a file `run/<name>.pid` with its process id and start time. Together they identify the process,
so one that merely reuses the id is never touched.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

from runtime.platform.errors import OperatorError

_STOP_S = 15.0
_POLL_S = 0.05
_START_TOLERANCE_S = 1.0  # two readings of one process's start time differ by less


@contextlib.contextmanager
def exclusive_lock(run_dir: Path, data_dir: Path) -> Iterator[None]:
    """Hold the lock of `run_dir`; raise `OperatorError` if another process has it. The kernel releases it at exit."""
    with _open_lock(run_dir / "up.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise OperatorError(
                f"eventpush is already running on {data_dir} (process {pid})",
                f"stop it with Ctrl-C or `kill {pid}`, or set another EVENTPUSH_DATA_DIR and other ports",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _open_lock(lock: Path) -> IO[str]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("a+")
    except OSError as error:  # owned by another user, for example after `sudo make up`
        raise OperatorError(
            f"{lock} cannot be written ({error.strerror})", "make it yours (chown), or remove it"
        ) from None


def record_child(run_dir: Path, name: str, pid: int) -> None:
    """Record a child that has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        entry = {"pid": pid, "started": psutil.Process(pid).create_time()}
        (run_dir / f"{name}.pid").write_text(json.dumps(entry))


def remove_record(run_dir: Path, name: str) -> None:
    """Remove the record of a child that has ended."""
    (run_dir / f"{name}.pid").unlink(missing_ok=True)


def stop_all(run_dir: Path) -> list[str]:
    """Stop the orphans of an earlier supervisor and their descendants; return a line for each."""
    lines = []
    for file in sorted(run_dir.glob("*.pid")):
        if family := _find(file):
            _stop(family)
            pids = ", ".join(str(process.pid) for process in family)
            lines.append(f"{file.stem} (process {pids}) was an orphan of an earlier run: stopped")
        file.unlink(missing_ok=True)
    return lines


def _find(file: Path) -> list[psutil.Process]:
    """Return the recorded child with its descendants, or the descendants alone: all share the child's session.

    A session id is not reused while the session has a member. So either the leader is the recorded process, or it has
    ended and everything in its session descends from it.
    """
    try:
        entry = json.loads(file.read_text())
        leader, started = int(entry["pid"]), float(entry["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(leader).create_time() - started) > _START_TOLERANCE_S:
            return []
    return [process for process in psutil.process_iter() if _session(process) == leader]


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (OSError, psutil.Error):
        return None


def _stop(family: list[psutil.Process]) -> None:
    _send(family, signal.SIGTERM)
    _send(_wait_for_exit(family), signal.SIGKILL)
    _wait_for_exit(family)


def _wait_for_exit(family: list[psutil.Process]) -> list[psutil.Process]:
    """Return those still running after the timeout. A zombie counts as ended, whether or not its parent reaps it."""
    deadline = time.monotonic() + _STOP_S
    while (running := [process for process in family if _session(process) is not None]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return running


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
