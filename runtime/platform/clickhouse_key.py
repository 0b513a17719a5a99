"""The password of the embedded ClickHouse: a file in the data directory that only its owner can read.

`eventpush up` makes it; every command in the same directory finds it, and `curl -H @FILE` sends it: the file holds the
two headers of ClickHouse's HTTP interface.
"""

import ipaddress
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from runtime.platform.errors import OperatorError

_FILE = "clickhouse-key"
_USER, _KEY = "X-ClickHouse-User: ", "X-ClickHouse-Key: "
_RANDOM_BYTES = 24


def path(data_dir: Path) -> Path:
    """Return the path of a data directory's password file."""
    return data_dir / _FILE


def read(data_dir: Path) -> str:
    """Return the password; empty when there is no file, or another account's."""
    try:
        lines = path(data_dir).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""
    return next((line.removeprefix(_KEY) for line in lines if line.startswith(_KEY)), "")


def ensure(data_dir: Path, user: str, password: str) -> str:
    """Write the file, mode 0600, with the given password, the one it holds, or a new one; return the password."""
    if any(not character.isprintable() for character in user + password):
        raise OperatorError("EVENTPUSH_CLICKHOUSE_PASSWORD or _USER holds a control character", "choose another one")
    password = password or read(data_dir) or secrets.token_urlsafe(_RANDOM_BYTES)
    new = path(data_dir).with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
        file.write(f"{_USER}{user}\n{_KEY}{password}\n")
    new.replace(path(data_dir))
    return password


def is_local(urls: str) -> bool:
    """Return whether the URLs, separated by commas, name this machine only: the password is sent nowhere else."""
    try:
        hosts = [urlsplit(url.strip()).hostname or "" for url in urls.split(",")]
        return all(host == "localhost" or ipaddress.ip_address(host).is_loopback for host in hosts)
    except ValueError:
        return False
