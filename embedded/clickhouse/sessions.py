"""Sessions: a connection that lives from one request to the next, for temporary tables and settings made with SET."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedded.clickhouse.connection import Setup, guarded, prepare
from embedded.clickhouse.errors import error
from embedded.clickhouse.statement import quote, quote_name


@dataclass
class Session:
    """One session: its connection (made by the first statement in it), and whether a statement is running there."""

    connection: Any = None
    busy: bool = False
    expiry: asyncio.TimerHandle | None = field(default=None, repr=False)

    def lend(
        self, connect: Callable[[], Any], setup: Setup, baseline: Mapping[str, str]
    ) -> tuple[Any, Callable[[], None]]:
        """Return the connection set up for one statement, and the function that gives it back. Blocks.

        Giving back undoes what the request set; what the statement itself set stays.
        """
        if self.connection is None:
            self.connection = connect()
            guarded(self.connection.query, _set(baseline), "Null")
        undo = [f"DROP TEMPORARY TABLE IF EXISTS {quote_name(table.name)}" for table in setup.external]
        undo += _undo(self.connection, setup)
        connection = self.connection

        def give_back() -> None:
            for sql in undo:
                guarded(connection.query, sql, "Null")

        try:
            prepare(connection, setup, {})
        except BaseException:
            give_back()
            raise
        return connection, give_back

    def close(self) -> None:
        """End the session and what it holds."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Sessions:
    """All sessions by id; one that is not used for its time is closed."""

    def __init__(self, close_in_thread: Callable[[Callable[[], None]], None]) -> None:
        self._sessions: dict[str, Session] = {}
        self._close_in_thread = close_in_thread

    def take(self, session_id: str, *, must_exist: bool) -> Session:
        """Lend the session for one statement; raise ClickHouseError if it is in use, or unknown and `must_exist`."""
        session = self._sessions.get(session_id)
        if session is None:
            if must_exist:
                raise error("SESSION_NOT_FOUND", "Session not found.")
            session = self._sessions[session_id] = Session()
        if session.busy:
            raise error("SESSION_IS_LOCKED", f"Session {session_id} is locked by a concurrent client.")
        if session.expiry is not None:
            session.expiry.cancel()
        session.busy = True
        return session

    def give_back(self, session_id: str, timeout_s: int, *, close: bool) -> None:
        """End the statement: the session's timeout begins again."""
        session = self._sessions[session_id]
        session.busy = False
        if close:
            self._end(session_id)
        else:
            session.expiry = asyncio.get_running_loop().call_later(timeout_s, self._end, session_id)

    def close(self) -> None:
        """End all sessions; blocks."""
        for session in self._sessions.values():
            if session.expiry is not None:
                session.expiry.cancel()
            session.close()
        self._sessions.clear()

    def _end(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._close_in_thread(session.close)


def _undo(connection: Any, setup: Setup) -> list[str]:
    """Return the statements that restore what the request is about to change."""
    undo = []
    if setup.database:
        database = guarded(connection.query, "SELECT currentDatabase()", "TSVRaw").bytes().decode().rstrip("\n")
        undo.append(f"USE {quote_name(database)}")
    if setup.settings:
        names = ", ".join(quote(name) for name in setup.settings)
        sql = f"SELECT name, value, changed FROM system.settings WHERE name IN ({names})"  # noqa: S608 - quoted
        for line in guarded(connection.query, sql, "TSV").bytes().decode().splitlines():
            name, value, changed = line.split("\t")
            undo.append(f"SET {name} = '{value}'" if changed == "1" else f"SET {name} = DEFAULT")
    return undo


def _set(settings: Mapping[str, str]) -> str:
    return "SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
