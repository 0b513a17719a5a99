"""Connections to ClickHouse: one server, or the replicas of a cluster, of which any may be away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
import clickhouse_connect
import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtime.platform.client_tls import client_context
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import clickhouse_password
from runtime.platform.settings import Settings
from sinks.insert_errors import refuses_rows

log = structlog.get_logger()

_CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 60  # an idle ClickHouse Cloud service accepts the connection and starts before it answers

#: Errors that may pass, by themselves or after an operator's fix.
UNAVAILABLE = (ClickHouseError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(eq=False)
class _Connection:
    client: AsyncClient
    server: int  # its place in the list of servers
    uses: int = 0


class ClickHouseServers:
    """The servers of `clickhouse_url`: one is used until it fails, then the next."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._first = 0  # the number of the server to try first; above 0 after a failure
        self._current: _Connection | None = None
        self._connecting = asyncio.Lock()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """Give a connected client; raises one of `UNAVAILABLE`.

        After an error inside, unless it is about an insert's rows, the next call connects again: to the next server,
        and with the password that the file has then. Whoever still uses the old client may finish.
        """
        async with self._connecting:
            if self._current is None:
                self._current = _Connection(*await _connect(self._settings, self._first))
                if self._first:
                    log.info("connected to ClickHouse again", server=self._current.client.url)
            connection = self._current
        connection.uses += 1
        try:
            yield connection.client
        except UNAVAILABLE as error:
            if self._current is connection and not refuses_rows(error):
                self._current, self._first = None, connection.server + 1
            raise
        finally:
            connection.uses -= 1
            if connection is not self._current and not connection.uses:
                await connection.client.close()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._current = self._current, None
        if connection is not None:
            await connection.client.close()


async def connect(settings: Settings, answer_timeout_s: int = ANSWER_TIMEOUT_S) -> AsyncClient:
    """Connect to the first server that answers; raises `OperatorError` for unusable settings, else `UNAVAILABLE`."""
    return (await _connect(settings, 0, answer_timeout_s))[0]


async def _connect(settings: Settings, first: int, answer_timeout_s: int = ANSWER_TIMEOUT_S) -> tuple[AsyncClient, int]:
    """Try each server once, from the number `first` on; return the client and its server's number."""
    servers = _servers(settings)
    options = _options(settings, any(server.scheme == "https" for server in servers))
    options["send_receive_timeout"] = answer_timeout_s
    failure: BaseException | None = None
    for attempt in range(len(servers)):
        number = (first + attempt) % len(servers)
        server = servers[number]
        try:
            client = await clickhouse_connect.get_async_client(
                host=server.hostname,
                port=server.port or (8443 if server.scheme == "https" else 8123),
                secure=server.scheme == "https",
                **options,
            )
        except UNAVAILABLE as error:
            failure = error
        else:
            return client, number
    assert failure is not None  # noqa: S101 - there is at least one server
    raise failure


def _servers(settings: Settings) -> list[SplitResult]:
    servers = [urlsplit(url.strip()) for url in settings.clickhouse_url.split(",")]
    if any(server.scheme not in ("http", "https") or not server.hostname for server in servers):
        raise OperatorError(
            f"EVENTPUSH_CLICKHOUSE_URL={settings.clickhouse_url!r} is not the address of an HTTP interface",
            "write it as http://host:8123 or https://host:8443, several separated by commas",
        )
    return servers


def _options(settings: Settings, secure: bool) -> dict[str, Any]:
    password = clickhouse_password(settings)
    options: dict[str, Any] = {
        "username": settings.clickhouse_user,
        "password": password,
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "compress": False,
    }
    if secure:
        client_context(settings, "clickhouse_ssl")  # for its messages: the client takes only the files
        files = {"ca_cert": settings.clickhouse_ssl_ca_file, "client_cert": settings.clickhouse_ssl_cert_file,
                 "client_cert_key": settings.clickhouse_ssl_key_file}  # fmt: skip
        options |= {name: str(file) for name, file in files.items() if file is not None}
        # Without a password, ClickHouse identifies the user by the certificate ("mutual"); else it is only checked.
        options["tls_mode"] = "strict" if password else "mutual"
    return options
