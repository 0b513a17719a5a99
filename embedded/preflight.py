"""Checks before a process starts, so that the operator reads one clear message instead of a child's crash output."""

import contextlib
import errno
import random
import shutil
import socket
from pathlib import Path

from runtime.platform.errors import OperatorError

SPACE_MIN_BYTES = 512 * 1024 * 1024  # with less, Kafka and ClickHouse soon fill the disk and stop


def require_free_port(host: str, port: int, use: str, remedy: str) -> None:
    """Raise `OperatorError` if `host:port` is in use; `use` names the service, `remedy` what to set instead."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: connections of an earlier run in TIME_WAIT do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise OperatorError(f"{use} cannot listen on {host}:{port} ({reason})", remedy) from None


def require_space(directory: Path, minimum_bytes: int = SPACE_MIN_BYTES) -> None:
    """Raise `OperatorError` if the file system of `directory` has less than `minimum_bytes` free."""
    free = shutil.disk_usage(directory).free
    if free < minimum_bytes:
        raise OperatorError(
            f"{directory} is on a file system with {free // 2**20} MB free; {minimum_bytes // 2**20} MB are needed",
            "free some space, or set EVENTPUSH_DATA_DIR to a directory with more",
        )


_given_ports: set[int] = set()  # by `free_ports`: its callers bind them later


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return `count` ports that are free now, below the range used for outgoing connections; none is returned twice."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OperatorError):
            require_free_port(host, port, "", "")
            if port not in _given_ports:
                _given_ports.add(port)
                ports.append(port)
    return ports
