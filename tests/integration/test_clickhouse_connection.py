"""Connections to a real ClickHouse through a front: certificates, password files, a server that wakes slowly."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, load
from sinks.clickhouse_connection import UNAVAILABLE, ClickHouseServers, connect
from tests import stack

WAKES_AFTER_S = 7.0  # longer than the timeout for connecting


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.ClickHouse]:
    """A ClickHouse whose user `default` has the password `right`."""
    clickhouse = stack.ClickHouse(tmp_path_factory.mktemp("clickhouse"), arguments=("--password-from-env", "PASSWORD"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PASSWORD", "right")
        clickhouse.start()
    yield clickhouse
    clickhouse.end_if_running()


@asynccontextmanager
async def front(
    clickhouse: stack.ClickHouse, tls: ssl.SSLContext | None = None, *, first_wait_s: float = 0
) -> AsyncIterator[int]:
    """A proxy that takes connections at once and holds the first one's bytes back; gives its port."""
    waits = iter([first_wait_s])
    tasks = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(65_536):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(next(waits, 0))
        behind = await asyncio.open_connection("127.0.0.1", urlsplit(clickhouse.url).port)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await asyncio.gather(copy(reader, behind[1]), copy(behind[0], writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait(tasks or {asyncio.ensure_future(asyncio.sleep(0))}, timeout=10)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """An authority, and a directory with its certificate (ca.pem) and a client's (client.pem)."""
    authority, home = trustme.CA(), tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(home / "ca.pem")
    authority.issue_cert("sink@example.org").private_key_and_cert_chain_pem.write_to_path(home / "client.pem")
    (home / "password").write_text("right\n")
    return authority, home


def requiring_certificates(authority: trustme.CA) -> ssl.SSLContext:
    """A server's context that demands a client certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def settings(port: int, home: Path, scheme: str = "https", **files: str) -> Settings:
    """Settings of the front at this port, with the password file."""
    environ = {"CLICKHOUSE_URL": f"{scheme}://127.0.0.1:{port}", "CLICKHOUSE_PASSWORD_FILE": str(home / "password")}
    return load({f"EVENTPUSH_{name}": value for name, value in (environ | files).items()})


async def test_own_authority_and_client_certificate(
    clickhouse: stack.ClickHouse, authority: tuple[trustme.CA, Path]
) -> None:
    """With its authority and a client certificate the server answers; without either the handshake fails."""
    issuer, home = authority
    ca, certificate = {"CLICKHOUSE_SSL_CA_FILE": f"{home}/ca.pem"}, {"CLICKHOUSE_SSL_CERT_FILE": f"{home}/client.pem"}
    async with front(clickhouse, requiring_certificates(issuer)) as port:
        client = await connect(settings(port, home, **ca, **certificate))
        assert await client.command("SELECT currentUser()") == "default"
        await client.close()
        for files in (ca, certificate):
            with pytest.raises(UNAVAILABLE):
                await connect(settings(port, home, **files))
        with pytest.raises(OperatorError, match="EVENTPUSH_CLICKHOUSE_SSL_CA_FILE=/none is unusable"):
            await connect(settings(port, home, CLICKHOUSE_SSL_CA_FILE="/none"))


async def test_a_changed_password_file_needs_no_restart(clickhouse: stack.ClickHouse, tmp_path: Path) -> None:
    """After a refusal the next connection uses the password that the file has by then."""
    (tmp_path / "password").write_text("wrong")
    servers = ClickHouseServers(settings(clickhouse.port, tmp_path, "http"))
    with pytest.raises(UNAVAILABLE):
        async with servers.client():
            pass
    (tmp_path / "password").write_text("right\n")
    async with servers.client() as client:
        assert await client.command("SELECT 1") == 1
    await servers.close()


async def test_a_server_that_wakes_slowly(clickhouse: stack.ClickHouse, authority: tuple[trustme.CA, Path]) -> None:
    """An idle service that takes the connection and answers seconds later is waited for: no error, no second try."""
    _, home = authority
    async with front(clickhouse, first_wait_s=WAKES_AFTER_S) as port:
        began = asyncio.get_running_loop().time()
        client = await connect(settings(port, home, "http"))
        assert asyncio.get_running_loop().time() - began >= WAKES_AFTER_S
        assert await client.command("SELECT 1") == 1
        await client.close()
