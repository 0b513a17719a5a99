"""The engine: chdb on one data directory, each statement on a connection of its own.

chdb's settings belong to a connection, and a connection costs 0.4 ms: so every statement gets a fresh one, and what a
request sets cannot outlive it. Rows come through a pipe that the engine writes with `INTO OUTFILE`: the bytes are those
that ClickHouse writes in any format, header and footer included, and a slow reader holds the engine back instead of
filling the memory (chdb's own streaming formats each chunk as if it were a whole result).

Statements block, so they run in threads; inserts have threads of their own, which slow queries cannot take.
"""

import asyncio
import json
import mmap
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

import chdb

from embedded.clickhouse import default_database
from embedded.clickhouse.compression import PIECE_BYTES
from embedded.clickhouse.connection import (
    QUERY_ID_COLUMN,
    QUERY_ID_SETTING,
    Setup,
    Summary,
    execute,
    guarded,
    insert,
    prepare,
    stream,
)
from embedded.clickhouse.errors import ClickHouseError, error
from embedded.clickhouse.policy import Policy
from embedded.clickhouse.privileges import write_users
from embedded.clickhouse.rows import Rows
from embedded.clickhouse.sessions import Session, Sessions
from embedded.clickhouse.statement import Statement, kill_by_query_id, quote, with_query_ids
from embedded.clickhouse.statement_pool import StatementPool

# What a server has and chdb has not, or the other way round.
_LIKE_A_SERVER = {
    "implicit_select": "0",
    "allow_introspection_functions": "0",
    # The rows are stored when the answer is given, not some time later.
    "async_insert": "0",
}
_NO_EXPRESSIONS = {
    "input_format_values_interpret_expressions": "0",
    "input_format_values_deduce_templates_of_expressions": "0",
}


@dataclass(frozen=True)
class Limits:
    """Bounds: statements at once, and how long one waits for a slot.

    `waiting_queries`: how many more queries may wait for clients that do not read.
    `memory_bytes`: of all together; 0 is the engine's default.
    """

    queries: int = 16
    waiting_queries: int = 240
    inserts: int = 16
    wait_s: float = 10
    memory_bytes: int = 0


class Engine:
    """The one engine of this process; raises ClickHouseError when the directory cannot be opened."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._path = str(directory / "clickhouse")
        self._baseline = dict(_LIKE_A_SERVER)
        if limits.memory_bytes:
            # Below the bound of all together, so that the one query at fault fails first.
            self._baseline["max_memory_usage"] = str(limits.memory_bytes * 4 // 5)
        config = _write_config(directory / "engine.xml", limits)
        default_database.prepare(Path(self._path))
        self._keeper = guarded(chdb.connect, f"{self._path}?config-file={config}")
        guarded(self._keeper.query, f"DETACH DATABASE {default_database.OVERLAY}", "Null")
        self._policy = Policy(
            self._names("system.functions"),
            self._names("system.table_functions"),
            self._names("system.table_engines") + self._names("system.database_engines"),
        )
        self._queries = StatementPool("query", limits.queries, limits.wait_s, limits.queries + limits.waiting_queries)
        self._inserts = StatementPool("insert", limits.inserts, limits.wait_s)
        self._control = ThreadPoolExecutor(1, "control")
        self.sessions = Sessions(self._queries.submit)
        self.version, self.timezone, self.display_name = self._ask("SELECT version(), timezone(), hostName()")[0]
        formats = self._ask("SELECT name, content_type FROM system.formats WHERE is_output")
        self.content_types = dict(formats)

    def check(self, statement: Statement, setup: Setup) -> None:
        """Raise ClickHouseError (497) for a statement, settings or parameters that reach out of the database."""
        self._policy.check(statement.text)
        for value in setup.settings.values():
            self._policy.check_setting(_bytes(value))
        for table in setup.external:
            self._policy.check(_bytes(table.structure))
            if table.format.lower() == "values":
                self._policy.check_rows(table.data)

    async def rows(self, statement: Statement, format_name: str, setup: Setup, session: Session | None = None) -> Rows:
        """Start a query with a result that may be large; the `Rows` must be closed."""
        release = _once(await self._queries.enter())

        async def start(sink: int) -> tuple[bytes, Summary]:
            try:
                return await self._queries.call(self._stream, statement, format_name, setup, session, sink)
            finally:
                release()

        return Rows(start, lambda: self.kill(setup.query_id), lambda: self.progress(setup.query_id), release)

    async def types(self, statement: Statement, setup: Setup) -> dict[str, str]:
        """Return the result's columns with their types; empty when only the session knows them."""
        sql = b"DESCRIBE (" + statement.head + b"\n)"
        try:
            data, _ = await self._queries.call(self._run, sql, "JSONCompactEachRow", setup, None)
        except ClickHouseError:
            return {}
        return {name: kind for name, kind, *_ in map(json.loads, data.splitlines())}

    async def run(
        self, statement: Statement, format_name: str, setup: Setup, session: Session | None = None
    ) -> tuple[bytes, Summary]:
        """Run a statement whose result is small; it goes on when the caller is cancelled."""
        if statement.word == "KILL":
            sql = kill_by_query_id(statement, QUERY_ID_COLUMN.encode())
            return await asyncio.wrap_future(self._control.submit(self._run, sql, format_name, setup, None))
        release = await self._queries.enter()
        sql = with_query_ids(statement.text, QUERY_ID_SETTING) if statement.reads_only else statement.text
        done = asyncio.ensure_future(self._queries.call(self._run, sql, format_name, setup, session))
        done.add_done_callback(lambda _: release())
        return await asyncio.shield(done)

    async def insert(
        self,
        statement: Statement,
        format_name: str,
        pieces: AsyncIterator[bytes],
        setup: Setup,
        session: Session | None = None,
    ) -> Summary:
        """Store what the pieces hold: bytes in that format.

        The rows are stored when this returns. They wait in a file until the last piece is here: a body that breaks off
        stores nothing, and a slow one takes no other insert's place. Invalid data stores nothing,
        but for blocks of a million rows before it: as with a server.
        """
        data = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the engine is done with it, whoever still waits
        try:
            await _gather(pieces, data)
            if format_name.lower() == "values":
                setup = await asyncio.to_thread(self._literals_only, statement, setup, data)
            release = await self._inserts.enter()
        except BaseException:
            data.close()
            raise

        async def store() -> Summary:
            try:
                return await self._inserts.call(self._insert, statement, format_name, setup, session, data)
            finally:
                data.close()
                release()

        # From here on the outcome is the engine's: a client that goes away no longer changes it.
        return await asyncio.shield(store())

    async def kill(self, query_id: str) -> None:
        """Ask the engine to stop a statement; return without waiting for its end."""
        text = f"KILL QUERY WHERE {QUERY_ID_COLUMN} = {quote(query_id)} ASYNC"
        with suppress(ClickHouseError):
            await self._ask_later(text)

    async def progress(self, query_id: str) -> Summary:
        """Return what a running statement has read so far."""
        columns = "read_rows, read_bytes, total_rows_approx, toUInt64(elapsed * 1e9)"
        where = f"{QUERY_ID_COLUMN} = {quote(query_id)}"
        found = await self._ask_later(f"SELECT {columns} FROM system.processes WHERE {where}")  # noqa: S608 - quoted
        if not found:
            return Summary()
        rows, size, total, elapsed_ns = map(int, found[0])
        return Summary(read_rows=rows, read_bytes=size, total_rows_to_read=total, elapsed_ns=elapsed_ns)

    def close(self) -> None:
        """Wait for the statements that still run, then end the engine."""
        self.sessions.close()
        self._queries.close()
        self._inserts.close()
        self._control.shutdown()
        self._keeper.close()

    def _connect(self, setup: Setup, session: Session | None) -> tuple[Any, Callable[[], None]]:
        """Return a connection set up for one statement, and the function that gives it back."""
        # What makes a session read-only could not be undone: such a statement gets a connection of its own.
        if session is not None and not setup.read_only and "readonly" not in setup.settings:
            return session.lend(lambda: chdb.connect(self._path), setup, self._baseline)
        connection = chdb.connect(self._path)
        try:
            prepare(connection, setup, self._baseline)
        except ClickHouseError:
            connection.close()
            raise
        return connection, connection.close

    def _run(self, sql: bytes, format_name: str, setup: Setup, session: Session | None) -> tuple[bytes, Summary]:
        connection, give_back = self._connect(setup, session)
        try:
            return execute(connection, sql, format_name, setup.parameters)
        finally:
            give_back()

    def _stream(
        self, statement: Statement, format_name: str, setup: Setup, session: Session | None, sink: int
    ) -> tuple[bytes, Summary]:
        try:
            connection, give_back = self._connect(setup, session)
            try:
                return stream(connection, statement, format_name, setup.parameters, sink)
            finally:
                give_back()
        finally:
            os.close(sink)

    def _insert(
        self, statement: Statement, format_name: str, setup: Setup, session: Session | None, data: IO[bytes]
    ) -> Summary:
        connection, give_back = self._connect(setup, session)
        try:
            return insert(connection, statement, format_name, data, setup.parameters)
        finally:
            give_back()

    def _literals_only(self, statement: Statement, setup: Setup, data: IO[bytes]) -> Setup:
        """Return the setup for rows of the format Values: without expressions where one could read a file."""
        if not os.fstat(data.fileno()).st_size:
            return setup
        with mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as rows:
            if not self._policy.needs_literals(rows):
                return setup
        if b"input_format_values" in statement.head.lower():
            raise error("ACCESS_DENIED", "Settings of the format Values are not allowed with these rows")
        return replace(setup, settings={**setup.settings, **_NO_EXPRESSIONS})

    def _names(self, table: str) -> list[str]:
        return [name for (name,) in self._ask(f"SELECT name FROM {table}")]  # noqa: S608 - ours

    def _ask(self, sql: str) -> list[list[str]]:
        text: str = guarded(self._keeper.query, sql, "TSV").bytes().decode()
        return [line.split("\t") for line in text.splitlines()]

    async def _ask_later(self, sql: str) -> list[list[str]]:
        return await asyncio.wrap_future(self._control.submit(self._ask, sql))


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """Call it the first time only."""
    calls = [call]

    def first() -> None:
        if calls:
            calls.pop()()

    return first


async def _gather(pieces: AsyncIterator[bytes], data: IO[bytes]) -> None:
    """Write all pieces, and go back to the beginning; raise ClickHouseError when there is no room for them."""
    try:
        async for piece in pieces:
            await asyncio.to_thread(data.write, piece) if len(piece) >= PIECE_BYTES else data.write(piece)
        data.seek(0)
    except OSError as problem:
        raise error("NOT_ENOUGH_SPACE", f"Cannot keep the data until it is whole: {problem.strerror}") from None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write_config(file: Path, limits: Limits) -> Path:
    memory = f"<max_server_memory_usage>{limits.memory_bytes}</max_server_memory_usage>" if limits.memory_bytes else ""
    users = write_users(file.with_name("users.xml"))
    file.write_text(
        f"<clickhouse>{memory}<users_config>{escape(str(users.absolute()))}</users_config>"
        f"<default_database>{default_database.OVERLAY}</default_database>"
        "<access_control_improvements>"
        "<table_engines_require_grant>true</table_engines_require_grant>"
        "</access_control_improvements></clickhouse>\n"
    )
    return file
