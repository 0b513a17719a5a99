"""ClickHouse client for the commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from sinks.clickhouse_connection import ANSWER_TIMEOUT_S, UNAVAILABLE, connect


@asynccontextmanager
async def connected(settings: Settings, answer_timeout_s: int = ANSWER_TIMEOUT_S) -> AsyncIterator[AsyncClient]:
    """Open a client; inside, an error or missing answer of ClickHouse becomes an `OperatorError`."""
    try:
        client = await connect(settings, answer_timeout_s)
        try:
            yield client
        finally:
            await client.close()
    except UNAVAILABLE as error:
        raise unreachable(settings, error) from None


def unreachable(settings: Settings, error: BaseException) -> OperatorError:
    """Describe that ClickHouse did not answer, or answered with an error."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return OperatorError(
        f"ClickHouse at EVENTPUSH_CLICKHOUSE_URL={settings.clickhouse_url} is unavailable ({reason})",
        "start it (`eventpush up` includes one) or set EVENTPUSH_CLICKHOUSE_URL, _USER and _PASSWORD",
    )
