"""One supervisor a data directory, and no process of an earlier one left over.

Each child's process id and start time are kept in `run/<name>.pid` while it lives; with both, a process that merely
got the same id is never touched.
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
_SAME_START_S = 1.0  # two readings of one process's start time differ by less


@contextlib.contextmanager
def only_one(run_dir: Path, data_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process; raise `OperatorError` if another has it. The lock ends with the process."""
    with _opened(run_dir / "up.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise OperatorError(
                f"eventpush is already running on {data_dir} (process {pid})",
                f"stop it there with Ctrl-C or by `kill {pid}`, or set another EVENTPUSH_DATA_DIR and other ports",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _opened(lock: Path) -> IO[str]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("a+")
    except OSError as error:  # another user's, say, after a `sudo make up`
        raise OperatorError(
            f"{lock} cannot be written ({error.strerror})", "make it yours (chown), or remove it"
        ) from None


def remember(run_dir: Path, name: str, pid: int) -> None:
    """Notes a child that has been started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        entry = {"pid": pid, "started": psutil.Process(pid).create_time()}
        (run_dir / f"{name}.pid").write_text(json.dumps(entry))


def forget(run_dir: Path, name: str) -> None:
    """Notes that a child has ended."""
    (run_dir / f"{name}.pid").unlink(missing_ok=True)


def stop_all(run_dir: Path) -> list[str]:
    """Ends what an earlier supervisor left running, with what those processes started; gives a line for each."""
    lines = []
    for file in sorted(run_dir.glob("*.pid")):
        if family := _left(file):
            _stop(family)
            pids = ", ".join(str(process.pid) for process in family)
            lines.append(f"{file.stem} (process {pids}) was left over from an earlier run: stopped")
        file.unlink(missing_ok=True)
    return lines


def _left(file: Path) -> list[psutil.Process]:
    """The remembered child and its descendants, or those alone: all are in the session that the child began.

    While a session has a member, no other process can get its id; so either the leader is the one that is remembered,
    or it is gone and what is in its session was its own.
    """
    try:
        entry = json.loads(file.read_text())
        leader, started = int(entry["pid"]), float(entry["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(leader).create_time() - started) > _SAME_START_S:
            return []
    return [process for process in psutil.process_iter() if _session(process) == leader]


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (OSError, psutil.Error):
        return None


def _stop(family: list[psutil.Process]) -> None:
    _send(family, signal.SIGTERM)
    _send(_still_there(family), signal.SIGKILL)
    _still_there(family)


def _still_there(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended in time. One that only its parent has not asked after (a zombie) has ended."""
    deadline = time.monotonic() + _STOP_S
    while (there := [process for process in family if _session(process) is not None]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return there


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
