"""One statement on one connection of chdb: setting it up, running it, and what it read and wrote. Everything blocks."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from embedded.clickhouse.errors import CODES, ClickHouseError, from_engine
from embedded.clickhouse.statement import Statement, quote, quote_name

T = TypeVar("T")

# The engine gives queries ids of its own; the door's id travels as their comment, and finds them again.
DOOR_ID_COLUMN = "Settings['log_comment']"
_DOOR_ID = "log_comment"


@dataclass(frozen=True)
class Setup:
    """What a statement runs under: the door's id for it, database, settings and parameters."""

    query_id: str
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False


@dataclass(frozen=True)
class Summary:
    """What a statement read and wrote, as in `X-ClickHouse-Summary`; the time in ns."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    total_rows_to_read: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0


def guarded(call: Callable[..., T], *arguments: Any) -> T:
    """Call chdb; what it raises comes as ClickHouseError."""
    try:
        return call(*arguments)
    except Exception as problem:
        raise from_engine(str(problem)) from None


def prepare(connection: Any, setup: Setup, baseline: Mapping[str, str]) -> None:
    """Set a connection up for one statement; raises ClickHouseError for a setting or database that does not exist."""
    if setup.database:
        guarded(connection.query, f"USE {quote_name(setup.database)}", "Null")
    settings = {**baseline, **setup.settings, _DOOR_ID: setup.query_id}
    settings |= {f"param_{name}": value for name, value in setup.parameters.items()}
    if setup.read_only:
        settings.setdefault("readonly", "2")
    if "readonly" in settings:  # last: it forbids to set what follows
        settings["readonly"] = settings.pop("readonly")
    pairs = ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
    guarded(connection.query, f"SET {pairs}", "Null")


def execute(connection: Any, sql: bytes, format_name: str) -> tuple[bytes, Summary]:
    """Run a statement; its result as bytes of that format (or of the one that the text names), and the summary."""
    began_ns = time.monotonic_ns()
    result = guarded(connection.query, sql, format_name)
    data: bytes = result.bytes()
    wrote = result.rows_written()
    return data, Summary(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=wrote,
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read() or wrote,
        result_bytes=result.bytes_read() or result.bytes_written(),
        elapsed_ns=time.monotonic_ns() - began_ns,
    )


def stream(connection: Any, statement: Statement, format_name: str, sink: int) -> tuple[bytes, Summary]:
    """
    Run a query; its result goes into the pipe `sink`, and blocks there while nobody reads.

    Gives bytes only when the text was not what it looked like and the result did not go through the pipe.
    """
    clause = f"\nINTO OUTFILE '/dev/fd/{sink}' APPEND\nFORMAT {quote_name(statement.format or format_name)} ".encode()
    try:
        _, summary = execute(connection, statement.head + clause + statement.tail, "Null")
    except ClickHouseError as problem:
        if problem.code != CODES["SYNTAX_ERROR"]:
            raise
        # Wrong, or not taken apart rightly: the engine judges the text as it came.
        return execute(connection, statement.text, format_name)
    return b"", summary


class Insert:
    """A running INSERT; it owns its connection."""

    def __init__(self, connection: Any, statement: Statement, format_name: str) -> None:
        self._connection = connection
        # A caller that was cancelled abandons the insert while another thread may still be at it.
        self._busy = threading.Lock()
        self._insert: Any = None
        try:
            self._insert = guarded(connection.send_insert, statement.head, format_name)
        except ClickHouseError:
            connection.close()
            raise

    def append(self, data: bytes) -> None:
        """More bytes; blocks while the engine is behind."""
        with self._busy:
            guarded(self._insert.append, data)

    def finish(self, data: bytes) -> Summary:
        """The last bytes; the rows are stored when this returns."""
        with self._busy:
            if data:
                guarded(self._insert.append, data)
            result = guarded(self._insert.finish)
            self._connection.close()
        rows, size = result.rows_written, result.bytes_written
        return Summary(rows, size, rows, size, 0, rows, size, int(result.elapsed * 1e9))

    def abandon(self) -> None:
        """Store nothing of what is not stored yet; without effect after `finish`."""
        with self._busy:
            with suppress(Exception):
                self._insert.cancel()
            self._connection.close()
