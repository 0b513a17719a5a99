"""Several ClickHouse servers: one is used until it fails, then the next; whoever uses an old client may finish."""

from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, load
from sinks.clickhouse_connection import ClickHouseServers, connect

URLS = "http://a:8123, https://b, http://c:1"


class Client:
    """A client as ClickHouse's driver makes it."""

    def __init__(self, host: str, options: dict[str, Any]) -> None:
        self.url = host
        self.options = options
        self.closed = False

    async def close(self) -> None:
        """Close."""
        self.closed = True


class Network:
    """Hands out clients of the hosts that are up, and records the attempts."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []

    async def client(self, *, host: str, **options: Any) -> Client:
        """Connect as `get_async_client` does."""
        self.asked.append(f"{host}:{options['port']}")
        if host in self.down:
            raise OperationalError(f"{host} is down")
        return Client(host, options)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """The network that the driver sees."""
    network = Network()
    monkeypatch.setattr(clickhouse_connect, "get_async_client", network.client)
    return network


def settings(**values: str) -> Settings:
    """Settings with the servers."""
    return load({"EVENTPUSH_CLICKHOUSE_URL": URLS} | {f"EVENTPUSH_CLICKHOUSE_{name}": v for name, v in values.items()})


async def host_of(servers: ClickHouseServers, error: Exception | None = None) -> str:
    """The host of the client that is given; the error is raised while it is used."""
    try:
        async with servers.client() as client:
            host = str(client.url)
            if error is not None:
                raise error
    except (OperationalError, DatabaseError):
        pass
    return host


async def test_one_server_is_used_until_it_fails(network: Network) -> None:
    """The first that answers is kept; after an error the next in the list is asked first, round and round."""
    servers = ClickHouseServers(settings())
    assert [await host_of(servers) for _ in range(3)] == ["a", "a", "a"]
    assert await host_of(servers, OperationalError("gone")) == "a"
    assert await host_of(servers) == "b"
    network.down = {"c"}
    assert await host_of(servers, OperationalError("gone")) == "b"
    assert await host_of(servers) == "a"
    assert network.asked == ["a:8123", "b:8443", "c:1", "a:8123"]


async def test_refused_rows_are_no_reason_to_change(network: Network) -> None:
    """An error about a value says nothing about the server."""
    servers = ClickHouseServers(settings())
    error = DatabaseError("Code: 27")
    error.code = 27
    assert await host_of(servers, error) == "a"
    assert await host_of(servers) == "a"


async def test_all_servers_away_is_one_error(network: Network) -> None:
    """Each is asked once; the error of the last one is raised."""
    network.down = {"a", "b", "c"}
    with pytest.raises(OperationalError, match="c is down"):
        await connect(settings())
    assert network.asked == ["a:8123", "b:8443", "c:1"]


async def test_an_old_client_is_closed_after_its_last_use(network: Network) -> None:
    """An insert that is under way on the old client is not cut off by another one's error."""
    servers = ClickHouseServers(settings())
    client: Any
    async with servers.client() as client:
        await host_of(servers, OperationalError("gone"))
        assert not client.closed
        assert await host_of(servers) == "b"
    assert client.closed
    current: Any
    async with servers.client() as current:
        assert not current.closed
    await servers.close()
    assert current.closed


async def test_a_certificate_without_password_identifies_the_user(network: Network) -> None:
    """With a password the certificate is only shown; without one ClickHouse takes the user from it."""
    for password, mode in (("secret", "strict"), ("", "mutual")):
        client: Any = await connect(settings(PASSWORD=password))
        assert client.options["tls_mode"] == mode
        assert client.options["password"] == password


@pytest.mark.parametrize("url", ["a:8123", "ftp://a", "http://", "http://a,,http://b", ""])
async def test_an_unusable_address_is_said(url: str) -> None:
    """Each part of the list must be an address with http or https."""
    with pytest.raises(OperatorError, match="is not the address of an HTTP interface"):
        await connect(load({"EVENTPUSH_CLICKHOUSE_URL": url}))
