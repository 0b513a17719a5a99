"""One statement on one connection of chdb: setting it up, running it, and what it read and wrote. Everything blocks."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from embedded.clickhouse.errors import CODES, ClickHouseError, from_engine
from embedded.clickhouse.statement import (
    Statement,
    parse,
    quote,
    quote_name,
    split_settings,
    take_input,
    with_query_ids,
)

T = TypeVar("T")

# The engine gives queries ids of its own. The request's id travels in a setting that no client of a server knows and
# that changes nothing but the name under which the engine calls other servers.
QUERY_ID_SETTING = "chdb_client_name"
_INPUT_TABLE = "input"
QUERY_ID_COLUMN = f"Settings['{QUERY_ID_SETTING}']"


@dataclass(frozen=True)
class External:
    """A table that a request brings: `data` is in that format."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass(frozen=True)
class Setup:
    """What a statement runs under: the query id, database, settings, parameters, external tables."""

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
    """Set a connection up for one statement; raise ClickHouseError for a setting or database that does not exist."""
    if setup.database:
        guarded(connection.query, f"USE {quote_name(setup.database)}", "Null")
    settings = {**baseline, **setup.settings, QUERY_ID_SETTING: setup.query_id}
    if setup.read_only:
        settings.setdefault("readonly", "2")
    readonly = settings.pop("readonly", None)
    pairs = ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
    guarded(connection.query, f"SET {pairs}", "Null")
    for table in setup.external:
        create(connection, table)
    if readonly is not None:  # last: it forbids all of the above
        guarded(connection.query, f"SET readonly = {quote(readonly)}", "Null")


def create(connection: Any, table: External) -> None:
    """Create the temporary table with its data, read under the connection's settings."""
    with tempfile.TemporaryFile() as data:
        data.write(table.data)
        data.seek(0)
        _create(connection, table.name, table.structure, table.format, data)


def _create(connection: Any, name: str, structure: str, format_name: str, data: IO[bytes]) -> None:
    guarded(connection.query, f"CREATE TEMPORARY TABLE {quote_name(name)} ({structure})", "Null")
    insert(connection, parse(f"INSERT INTO {quote_name(name)} FORMAT Native".encode()), format_name, data, {})


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
    """Run a query; its result goes into the pipe `sink`, and blocks there while no client reads.

    Gives bytes only when the text was not what it looked like and the result did not go through the pipe.
    """
    clause = f"\nINTO OUTFILE '/dev/fd/{sink}' APPEND\nFORMAT {quote_name(statement.format or format_name)} ".encode()
    try:
        head = with_query_ids(statement.head, QUERY_ID_SETTING)
        _, summary = execute(connection, head + clause + statement.tail, "Null", parameters)
    except ClickHouseError as problem:
        if problem.code != CODES["SYNTAX_ERROR"]:
            raise
        # Wrong, or not taken apart rightly: the engine parses the text as it came.
        return execute(connection, statement.text, format_name, parameters)
    return b"", summary


def insert(
    connection: Any, statement: Statement, format_name: str, data: IO[bytes], parameters: Mapping[str, str]
) -> Summary:
    """Run an INSERT with the open file as its data; the rows are stored when this returns.

    chdb's own `send_insert` is not used: its `finish` says that all is well when the data was read but could not be
    stored (a violated constraint, a view that throws, a full disk; chdb 4.4), and rows would be acknowledged and lost.
    """
    if (asked := take_input(statement.head, _INPUT_TABLE)) is not None:
        return _insert_select(connection, asked, format_name, data, parameters)
    began_ns = time.monotonic_ns()
    target, clause = split_settings(statement.head)
    source = f"\nFROM INFILE '/dev/fd/{data.fileno()}' COMPRESSION 'none' ".encode()
    sql = target + source + clause + f" FORMAT {quote_name(format_name)}".encode()
    result = guarded(connection.query, sql, "Null", dict(parameters))
    rows, size = result.rows_read(), result.bytes_read()
    return Summary(rows, size, rows, size, 0, rows, size, time.monotonic_ns() - began_ns)


def _insert_select(
    connection: Any, asked: tuple[bytes, str], format_name: str, data: IO[bytes], parameters: Mapping[str, str]
) -> Summary:
    """Run `INSERT … SELECT … FROM input(…)`: the engine has that function for data within the text only."""
    sql, structure = asked
    _create(connection, _INPUT_TABLE, structure, format_name, data)
    try:
        return execute(connection, sql, "Null", parameters)[1]
    finally:
        guarded(connection.query, f"DROP TEMPORARY TABLE {quote_name(_INPUT_TABLE)}", "Null")
