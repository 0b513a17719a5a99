"""ClickHouse, as the commands reach it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.errors import Problem
from runtime.settings import Settings
from sinks.store import UNAVAILABLE, connect


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AsyncClient]:
    """Connect a client; turn ClickHouse errors and timeouts inside the block into a `Problem`."""
    try:
        client = await connect(settings)
        try:
            yield client
        finally:
            await client.close()
    except UNAVAILABLE as error:
        raise unreachable(settings, error) from None


def unreachable(settings: Settings, error: BaseException) -> Problem:
    """ClickHouse did not answer, or not as it should."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return Problem(
        f"ClickHouse at EVENTPUSH_CLICKHOUSE_URL={settings.clickhouse_url} cannot be used ({reason})",
        "start it (`eventpush up` brings one along) or set EVENTPUSH_CLICKHOUSE_URL, _USER and _PASSWORD",
    )
