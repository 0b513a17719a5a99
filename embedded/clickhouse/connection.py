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
class External:
    """A table that comes with a query and goes with it: `data` is in that format."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass(frozen=True)
class Setup:
    """What a statement runs under: the door's id for it, database, settings, parameters, external tables."""

    query_id: str
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    external: tuple[External, ...] = ()
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
    for table in setup.external:
        _create(connection, table)
    settings = {**baseline, **setup.settings, _DOOR_ID: setup.query_id}
    if setup.read_only:
        settings.setdefault("readonly", "2")
    if "readonly" in settings:  # last: it forbids to set what follows
        settings["readonly"] = settings.pop("readonly")
    pairs = ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
    guarded(connection.query, f"SET {pairs}", "Null")


def _create(connection: Any, table: External) -> None:
    name = quote_name(table.name)
    guarded(connection.query, f"CREATE TEMPORARY TABLE {name} ({table.structure})", "Null")
    insert = guarded(connection.send_insert, f"INSERT INTO {name}", table.format)
    guarded(insert.append, table.data)
    guarded(insert.finish)


def execute(connection: Any, sql: bytes, format_name: str, parameters: Mapping[str, str]) -> tuple[bytes, Summary]:
    """Run a statement; its result as bytes of that format (or of the one that the text names), and the summary."""
    began_ns = time.monotonic_ns()
    result = guarded(connection.query, sql, format_name, dict(parameters))
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


def stream(
    connection: Any, statement: Statement, format_name: str, parameters: Mapping[str, str], sink: int
) -> tuple[bytes, Summary]:
    """
    Run a query; its result goes into the pipe `sink`, and blocks there while nobody reads.

    Gives bytes only when the text was not what it looked like and the result did not go through the pipe.
    """
    clause = f"\nINTO OUTFILE '/dev/fd/{sink}' APPEND\nFORMAT {quote_name(statement.format or format_name)} ".encode()
    try:
        _, summary = execute(connection, statement.head + clause + statement.tail, "Null", parameters)
    except ClickHouseError as problem:
        if problem.code != CODES["SYNTAX_ERROR"]:
            raise
        # Wrong, or not taken apart rightly: the engine judges the text as it came.
        return execute(connection, statement.text, format_name, parameters)
    return b"", summary


class Insert:
    """A running INSERT; `give_back` is called once, when it no longer needs the connection."""

    def __init__(
        self,
        connection: Any,
        give_back: Callable[[], None],
        statement: Statement,
        format_name: str,
        parameters: Mapping[str, str],
    ) -> None:
        self._give_back: Callable[[], None] | None = give_back
        # A caller that was cancelled abandons the insert while another thread may still be at it.
        self._busy = threading.Lock()
        self._insert: Any = None
        try:
            if parameters:
                pairs = ", ".join(f"param_{name} = {quote(value)}" for name, value in parameters.items())
                guarded(connection.query, f"SET {pairs}", "Null")
            self._insert = guarded(connection.send_insert, statement.head, format_name)
        except ClickHouseError:
            self._leave()
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
            self._leave()
        rows, size = result.rows_written, result.bytes_written
        return Summary(rows, size, rows, size, 0, rows, size, int(result.elapsed * 1e9))

    def abandon(self) -> None:
        """Store nothing of what is not stored yet; without effect after `finish`."""
        with self._busy:
            with suppress(Exception):
                self._insert.cancel()
            self._leave()

    def _leave(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
