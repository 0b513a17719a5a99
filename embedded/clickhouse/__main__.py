"""`python -m embedded.clickhouse`: ClickHouse in a process of its own."""

import asyncio
import os
import resource
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import click

from embedded.clickhouse.http_interface import Access
from embedded.clickhouse.server import GRACE_S, serve
from runtime.platform.errors import OperatorError

_CLOSE_S = 10
_OPEN_FILES = 10_240
_NICE = 5  # on few cores, merges and queries make way for the event path


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8123, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="Where tables are kept.")
@click.option("--user", default="default", show_default=True, help="The one user's name.")
@click.option("--password-from-env", metavar="NAME", help="Environment variable with the user's password.")
@click.option("--memory-bytes", type=int, help="Most memory that queries may take together [default: half of all].")
@click.option("--grace-s", default=GRACE_S, show_default=True, help="Seconds that inserts get to end at SIGTERM.")
def main(
    host: str,
    port: int,
    data_dir: Path,
    user: str,
    password_from_env: str | None,
    memory_bytes: int | None,
    grace_s: float,
) -> None:
    """Serve ClickHouse's HTTP interface until SIGTERM or SIGINT; one line on standard output when it is ready."""
    _raise_file_limit()
    os.nice(_NICE)
    try:
        access = Access(user, _password(password_from_env))
        asyncio.run(_serve_until_signal(data_dir, host, port, access, memory_bytes, grace_s))
    except OperatorError as problem:
        sys.exit(str(problem))


def _raise_file_limit() -> None:
    """Raise the limit of open files: the engine opens many, and some systems allow only 256 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # what the system gives serves too
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _password(variable: str | None) -> str:
    if variable is None:
        return ""
    password = os.environ.get(variable, "")
    if not password:
        raise OperatorError(f"{variable} holds no password for ClickHouse", "set it, or leave --password-from-env out")
    return password


async def _serve_until_signal(
    data_dir: Path, host: str, port: int, access: Access, memory_bytes: int | None, grace_s: float
) -> None:
    stop = asyncio.Event()

    def end() -> None:
        stop.set()
        # The engine cannot be made to stop; what it acknowledged is on disk, so an end by force loses nothing.
        force = threading.Timer(grace_s + _CLOSE_S, os._exit, (1,))
        force.daemon = True
        force.start()

    def ready(line: str) -> None:
        # After the engine has started: it sets handlers of its own.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end)
        click.echo(line)

    await serve(
        data_dir,
        host=host,
        port=port,
        access=access,
        memory_bytes=memory_bytes,
        stop=stop,
        ready=ready,
        grace_s=grace_s,
    )


if __name__ == "__main__":
    main()
