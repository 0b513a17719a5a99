"""ClickHouse's HTTP interface in front of the engine."""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from aiohttp import web

from embedded.clickhouse.body import Body
from embedded.clickhouse.connection import Setup
from embedded.clickhouse.engine import Engine
from embedded.clickhouse.errors import ClickHouseError, error
from embedded.clickhouse.form import Form, describes_a_table, external_tables, read_form
from embedded.clickhouse.origin import check_origin
from embedded.clickhouse.replies import Reply, error_response
from embedded.clickhouse.request import DEFAULT_FORMAT, Ask, Credentials, ask, credentials
from embedded.clickhouse.result import Result
from embedded.clickhouse.sessions import Session
from embedded.clickhouse.statement import Statement, is_insert, parse

log = logging.getLogger(__name__)

_MAX_QUERY_SIZE = 262_144
_KILL_AGAIN_S = 0.2

_NO_SUCH_PATH = """There is no handle {path}

Use / or /ping for health checks.
Or /replicas_status for more sophisticated health checks.

Send queries from your program with POST method or GET /?query=...
"""


@dataclass(frozen=True)
class Access:
    """The one user. An empty password is a password: no other is accepted in its place."""

    user: str = "default"
    password: str = ""

    def check(self, who: Credentials) -> None:
        """Raise ClickHouseError when these are not the right ones."""
        right_user = hmac.compare_digest(_bytes(who.user), _bytes(self.user))
        right_password = hmac.compare_digest(_bytes(who.password), _bytes(self.password))
        if right_user and right_password:
            return
        raise error(
            "AUTHENTICATION_FAILED" if who.given else "REQUIRED_PASSWORD",
            f"{who.user}: Authentication failed: password is incorrect, or there is no user with such name.",
        )


class HttpInterface:
    """The handler of all HTTP requests."""

    def __init__(self, engine: Engine, access: Access, host: str) -> None:
        self._engine = engine
        self._host = host
        self._access = access
        self._running: dict[str, bool] = {}  # query id → whether it may be stopped
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, stop queries, and give inserts and other statements `grace_s` seconds to end."""
        self._closing = True
        end = time.monotonic() + grace_s
        while self._running:
            in_time = time.monotonic() < end
            for query_id, may_be_stopped in list(self._running.items()):
                if may_be_stopped or not in_time:
                    await self._engine.kill(query_id)
            with suppress(TimeoutError):
                # Again and again, because a query that is about to start is not found yet.
                await asyncio.wait_for(self._idle.wait(), _KILL_AGAIN_S)
            if not in_time:
                return

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to any request."""
        path = request.path
        try:
            check_origin(request.headers, self._host)
        except ClickHouseError as problem:
            return error_response(problem, self._engine)
        if path in {"/ping", "/replicas_status"} or (path == "/" and _is_health_check(request)):
            return web.Response(text="Ok.\n", content_type="text/html")
        if path not in {"/", "/query"}:
            return web.Response(status=404, text=_NO_SUCH_PATH.format(path=path))
        try:
            return await self._query(request)
        except ClickHouseError as problem:
            return error_response(problem, self._engine)
        except ConnectionError:  # the client went away
            raise
        except Exception:
            log.exception("unexpected error in the HTTP interface")
            return error_response(
                error("UNKNOWN_EXCEPTION", "Unexpected error in the HTTP interface; see its log"), self._engine
            )

    async def _query(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD", "POST"}:
            raise error("NOT_IMPLEMENTED", f"Unsupported method {request.method}")
        self._access.check(credentials(request.query, request.headers))
        _continue(request)
        form = await read_form(request) if request.content_type == "multipart/form-data" else Form({}, {})
        fields = {**request.query, **form.fields}
        asked = ask([(k, v) for k, v in fields.items() if not describes_a_table(k, form)], request.headers)
        setup = Setup(
            query_id=asked.query_id or str(uuid.uuid4()),
            database=asked.database,
            settings=asked.settings,
            parameters=asked.parameters,
            external=external_tables(form, fields),
            read_only=request.method != "POST",
        )
        with self._registered(setup.query_id), self._session(asked) as session:
            try:
                return await self._answer(request, asked, setup, session)
            except ClickHouseError as problem:
                return error_response(problem, self._engine, setup.query_id)

    async def _answer(
        self, request: web.BaseRequest, asked: Ask, setup: Setup, session: Session | None
    ) -> web.StreamResponse:
        body = Body(request, packed_blocks=asked.packed_blocks_in)
        statement = await _statement(asked, body)
        if setup.read_only and not statement.reads_only:
            raise error(
                "READONLY",
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
                "You should use method POST for modifying queries.",
            )
        self._engine.check(statement, setup)
        if statement.kind == "insert":
            format_name = statement.format or asked.default_format or "Values"
            pieces = body.pieces(statement.data)
            summary = await self._engine.insert(statement, format_name, pieces, setup, session)
            return Reply(request, self._engine, asked, setup.query_id, format_name).done(summary)
        format_name = asked.default_format or DEFAULT_FORMAT
        reply = Reply(request, self._engine, asked, setup.query_id, statement.format or format_name)
        if statement.kind == "other":
            data, summary = await self._engine.run(statement, format_name, setup, session)
            return reply.whole(data, summary) if data else reply.done(summary)
        self._running[setup.query_id] = True
        rows = await self._engine.rows(statement, format_name, setup, session)
        try:
            result = Result(rows, reply, asked, lambda: self._engine.types(statement, setup))
            return await result.send()
        except ClickHouseError as problem:
            return await reply.fail(problem)
        finally:
            await rows.close()

    @contextmanager
    def _registered(self, query_id: str) -> Iterator[None]:
        if query_id in self._running:
            message = f"Query with id = {query_id} is already running"
            raise error("QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", message)
        if self._closing:
            raise error("ABORTED", "Server is shutting down")
        self._running[query_id] = False
        self._idle.clear()
        try:
            yield
        finally:
            del self._running[query_id]
            if not self._running:
                self._idle.set()

    @contextmanager
    def _session(self, asked: Ask) -> Iterator[Session | None]:
        if not asked.session_id:
            yield None
            return
        session = self._engine.sessions.take(asked.session_id, must_exist=asked.session_check)
        try:
            yield session
        finally:
            self._engine.sessions.give_back(asked.session_id, asked.session_timeout_s, close=asked.close_session)


def _is_health_check(request: web.BaseRequest) -> bool:
    return request.method in {"GET", "HEAD"} and "query" not in request.query and not request.can_read_body


def _continue(request: web.BaseRequest) -> None:
    """Say to go on: curl waits for this before it sends a large body."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _statement(asked: Ask, body: Body) -> Statement:
    """Return the statement: the URL's query, the body's text, or both joined as a server does.

    An INSERT's data stays in the body; what was read of it with the statement is `Statement.data`.
    """
    of_url = asked.query.encode("utf-8", "surrogateescape").lstrip()
    if of_url and (statement := parse(of_url)).kind == "insert":
        return statement
    limit = int(asked.settings.get("max_query_size", _MAX_QUERY_SIZE))
    beginning = await body.beginning(limit + 1)
    text = b"\n".join(part for part in (of_url, beginning) if part.strip())
    if len(text) > limit and not is_insert(text):
        raise error("SYNTAX_ERROR", f"Syntax error: Max query size exceeded: it is {limit} bytes (max_query_size)")
    statement = parse(text)
    if statement.kind == "insert":
        body.skip(len(beginning))
        return statement
    if of_url and beginning.strip() and statement.word == "INSERT" and b"SELECT" not in of_url.upper():
        # Data behind an INSERT that names no format.
        return Statement("insert", "INSERT", of_url, None, b"", b"", of_url)
    if len(text) > limit:
        raise error("SYNTAX_ERROR", f"Syntax error: Max query size exceeded: it is {limit} bytes (max_query_size)")
    return statement


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
