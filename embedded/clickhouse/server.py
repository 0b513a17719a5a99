"""The server process: lock, port, engine and HTTP interface, from start to graceful end."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import web

from embedded.clickhouse.engine import Engine, Limits
from embedded.clickhouse.errors import ClickHouseError
from embedded.clickhouse.http_interface import Access, HttpInterface
from runtime.platform.errors import OperatorError

GRACE_S = 20
_URI_BYTES_MAX = 1 << 20  # as a server's http_max_uri_size
_KEEP_ALIVE_S = 75
_BACKLOG = 512


async def serve(
    data_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8123,
    access: Access | None = None,
    memory_bytes: int | None = None,
    stop: asyncio.Event,
    ready: Callable[[str], None] = lambda _: None,
    grace_s: float = GRACE_S,
) -> None:
    """Serve until `stop` is set; `ready` gets one line when connections are accepted.

    `memory_bytes`: most memory of all statements together (default: half of the machine's).

    After `stop`, running inserts have `grace_s` seconds to end; queries stop. Raise OperatorError if the port, the
    directory or the engine cannot be used.
    """
    with _locked(data_dir), _listening(host, port) as listener:
        # Large bodies and results wait beside the data, and not in a /tmp that may be memory.
        tempfile.tempdir = str(data_dir / "waiting")
        engine = await asyncio.to_thread(_open, data_dir, Limits(memory_bytes=memory_bytes or _half_of_memory()))
        interface = HttpInterface(engine, access or Access(), host)
        server = web.Server(
            interface.handle,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            max_line_size=_URI_BYTES_MAX,
            keepalive_timeout=_KEEP_ALIVE_S,
        )
        listening = await asyncio.get_running_loop().create_server(server, sock=listener, backlog=_BACKLOG)
        try:
            address = f"http://{_shown(host)}:{listener.getsockname()[1]}"
            ready(f"ClickHouse {engine.version} ready on {address} (data in {data_dir})")
            await stop.wait()
        finally:
            listening.close()
            await interface.drain(grace_s)
            await server.shutdown(1)
            await asyncio.to_thread(engine.close)


def _open(data_dir: Path, limits: Limits) -> Engine:
    try:
        return Engine(data_dir, limits)
    except ClickHouseError as problem:
        raise OperatorError(
            f"ClickHouse cannot open {data_dir} ({problem.text})",
            "fix what it names, or choose another data directory",
        ) from None
    except OSError as problem:
        raise _unusable(data_dir, problem) from None


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the directory: the engine in it belongs to one process; the lock goes with the process, however it ends."""
    try:
        (data_dir / "waiting").mkdir(parents=True, exist_ok=True)
        data_dir.chmod(0o700)  # rows are for those who know the password, whatever the umask
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        raise _unusable(data_dir, problem) from None
    try:
        _take(lock, data_dir)
        yield
    finally:
        os.close(lock)


def _take(lock: int, data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise OperatorError(
            f"{data_dir} is in use by another ClickHouse (process {holder})",
            "stop that process, or choose another data directory",
        ) from None
    except OSError as problem:
        raise _unusable(data_dir, problem) from None


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as problem:
            raise OperatorError(
                f"ClickHouse cannot listen on {host}:{port} ({problem.strerror or problem})",
                "stop the process that uses the port, or choose another port",
            ) from None
        yield listener


def _unusable(data_dir: Path, problem: OSError) -> OperatorError:
    remedy = "free some space there" if problem.errno == errno.ENOSPC else "choose a writable directory"
    return OperatorError(f"{data_dir} cannot be used for ClickHouse's data ({problem.strerror or problem})", remedy)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _half_of_memory() -> int:
    """Return half of the machine's memory: a query that wants more fails, and the machine stays usable."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
