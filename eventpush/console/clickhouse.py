"""Queries to ClickHouse over a client that stays open."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from eventpush.clickhouse_client import unreachable
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from sinks.clickhouse_connection import UNAVAILABLE, connect

T = TypeVar("T")

#: A page is no reason to keep ClickHouse busy.
_LIMITS = {"max_execution_time": 10, "max_threads": 2}


class ClickHouse:
    """Connects on first use, and again after an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AsyncClient | None = None

    async def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query; raise `OperatorError` if ClickHouse is unavailable or refuses it."""

        async def ask(client: AsyncClient) -> list[dict[str, Any]]:
            found = await client.query(query, parameters=dict(parameters or {}), settings=_LIMITS)
            return list(found.named_results())

        return await self.ask(ask)

    async def ask(self, question: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """Return what a function of the client returns; raise `OperatorError` as `rows` does."""
        try:
            if self._client is None:
                self._client = await connect(self._settings)
            return await question(self._client)
        except UNAVAILABLE as error:
            await self.close()
            if not isinstance(error, ClickHouseError) or isinstance(error, OperationalError):
                raise OperatorError(f"ClickHouse at {self._settings.clickhouse_url} does not answer", "") from None
            raise unreachable(self._settings, error) from None

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
