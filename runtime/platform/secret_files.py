"""Secrets that a setting gives itself or as a file: Docker and Kubernetes mount secrets as files."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, variable

_RANDOM_BYTES = 32


def read_secret_file(file: Path, name: str) -> str:
    """Read the file's text. Raises `OperatorError` with the variable's `name` and the file's, never the content."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OperatorError(f"{name}={file} cannot be read ({why})", "name a readable file") from None


def kafka_sasl_password(settings: Settings) -> str | None:
    """Return the SASL password, None if it is not set. Raises `OperatorError` for an unreadable file."""
    return _secret(settings, "kafka_sasl_password")


def clickhouse_password(settings: Settings) -> str:
    """Return ClickHouse's password, as the file has it now. Raises `OperatorError` for an unreadable file."""
    return _secret(settings, "clickhouse_password") or ""


def console_token(settings: Settings) -> str | None:
    """Return the console's token, None if it is not set. Raises `OperatorError` for an unreadable file."""
    return _secret(settings, "console_token")


def erasure_key(settings: Settings) -> str | None:
    """Return the key of the deny list: the one that is set, or the one that `up` made; None if there is neither.

    Raises `OperatorError` for an unreadable file.
    """
    made = made_erasure_key(settings)
    if settings.erasure_key is None and settings.erasure_key_file is None and made.exists():
        return read_secret_file(made, "the erasure key").strip()
    return _secret(settings, "erasure_key")


def made_erasure_key(settings: Settings) -> Path:
    """Return the path of the erasure key in the data directory."""
    return settings.data_dir / "erasure-key"


def ensure_erasure_key(settings: Settings) -> None:
    """Make the erasure key of the data directory, mode 0600, unless it is there."""
    with suppress(FileExistsError):
        created = os.open(made_erasure_key(settings), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(created, "w") as file:  # noqa: PTH123 - a descriptor
            file.write(f"{secrets.token_urlsafe(_RANDOM_BYTES)}\n")


def _secret(settings: Settings, field: str) -> str | None:
    file = getattr(settings, f"{field}_file")
    if file is not None:
        return read_secret_file(file, f"{variable(field)}_FILE").rstrip("\r\n")  # editors and `echo` end the line
    value = getattr(settings, field)
    return None if value is None else value.get_secret_value()
