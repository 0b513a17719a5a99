"""The sink's ClickHouse client: inserts are retried until ClickHouse accepts or refuses the rows."""

import asyncio
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from runtime.platform import metrics
from runtime.platform.backoff import Backoff
from runtime.platform.settings import Settings
from schemas.erasure import NOBODY, Erased
from schemas.tables import Table
from sinks.clickhouse_connection import UNAVAILABLE, ClickHouseServers
from sinks.insert_errors import refuses_rows
from sinks.missing_rows import find_missing
from sinks.row_encoder import UNMAPPABLE, RowEncoder

log = structlog.get_logger()

_INSERTS_AT_ONCE = 4
_RETRY_MIN_S, _RETRY_MAX_S = 0.1, 10.0
_RECHECK_S = (0.2, 1.0)

_INSERT_SETTINGS = {
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # The answer means stored. A batch is one block, so that its token covers all of it.
    "async_insert": 0,
    "min_insert_block_size_rows": 1 << 20,
    "min_insert_block_size_bytes": 0,
    # Devices may deliver many months at once, which is slow but valid.
    "max_partitions_per_insert_block": 0,
}


class RowsRefusedError(Exception):
    """At least one row of the insert cannot be stored; the message says why."""


class ClickHouseWriter:
    """Insert rows into ClickHouse, but for those about who is on the deny list; connects on first use."""

    def __init__(self, settings: Settings, erased: Erased = NOBODY) -> None:
        self._erased = erased
        self.servers = ClickHouseServers(settings)
        self._inserting = asyncio.Semaphore(_INSERTS_AT_ONCE)
        # One thread: two would only compete for the GIL and the processor's cache.
        self._encoding = ThreadPoolExecutor(1, "encoding")
        self.waiting_since: float | None = None

    async def close(self) -> None:
        """Close the connections."""
        self._encoding.shutdown(wait=False)
        await self.servers.close()

    async def failure(self) -> str | None:
        """Return None if ClickHouse answers, else the error: a check for `/readyz`."""
        try:
            async with self.servers.client() as client:
                await client.command("SELECT 1")
        except UNAVAILABLE as error:
            return _first_line(error)
        return None

    async def insert(self, rows: RowEncoder, values: Sequence[bytes | None], token: str, *, repeated: bool) -> None:
        """Insert the records as rows, all or none, once per token; return when ClickHouse has acknowledged.

        While ClickHouse is unavailable, retries the same bytes with the same token. `repeated` says that the insert may
        have been made before; then, and after a failure here, missing rows are looked for and inserted (see
        `sinks.missing_rows`). Raise `RowsRefusedError`.
        """
        # A recreated topic starts at offset 0 again: the first record's checksum distinguishes it from the old one.
        token = f"{token}:{zlib.crc32(values[0] or b''):08x}"
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        entries = len(self._erased)
        allowed = pending = await self._allowed(values)
        body = await self._blocks(rows, pending)
        while pending:
            if entries != len(self._erased):
                entries, pending = len(self._erased), await self._allowed(pending)
                body = await self._blocks(rows, pending)
                continue
            try:
                async with self._inserting:
                    await self._insert(rows.table, body, token)
                if repeated and (missing := await self._find_missing(rows, pending)):
                    log.warning("ClickHouse knows the token but lacks rows; inserting them",
                                insert=token, rows=len(missing))  # fmt: skip
                    token += "+"
                    pending, body = missing, await self._blocks(rows, missing)
                    continue
            except UNAVAILABLE as error:
                if refuses_rows(error):
                    raise RowsRefusedError(_first_line(error)) from error
                repeated = True
                metrics.SINK_RETRIES.metric.labels(rows.table.name).inc()
                self.waiting_since = self.waiting_since or time.monotonic()
                pause_s = backoff.next_s()
                log.warning("insert failed; retrying", insert=token, error=_first_line(error), in_s=round(pause_s, 2))
                await asyncio.sleep(pause_s)
            else:
                self.waiting_since = None
                metrics.SINK_ROWS.metric.labels(rows.table.name).inc(len(allowed))
                return

    async def _allowed(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """Return the records that are not about who is on the deny list: Kafka keeps theirs for a while."""
        if not self._erased:
            return values
        return await asyncio.get_running_loop().run_in_executor(
            self._encoding, lambda: [value for value in values if not self._erased.is_about(value)]
        )

    async def _blocks(self, rows: RowEncoder, values: Sequence[bytes | None]) -> bytes:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._encoding, rows.blocks, values)
        except UNMAPPABLE as error:
            raise RowsRefusedError(_first_line(error)) from error

    async def _find_missing(self, rows: RowEncoder, values: Sequence[bytes | None]) -> list[bytes | None]:
        """Return the missing rows, after rechecking: an insert in progress or another replica may lag."""
        for pause_s in _RECHECK_S:
            if not await self._rows_missing_now(rows, values):
                return []
            await asyncio.sleep(pause_s)
        return await self._rows_missing_now(rows, values)

    async def _rows_missing_now(self, rows: RowEncoder, values: Sequence[bytes | None]) -> list[bytes | None]:
        async with self.servers.client() as client:
            return await find_missing(client, rows, values)

    async def _insert(self, table: Table, body: bytes, token: str) -> None:
        async with self.servers.client() as client:
            with metrics.SINK_INSERT_S.metric.labels(table.name).time():
                await client.raw_insert(
                    table.store,
                    column_names=[column.name for column in table.columns],
                    insert_block=body,
                    fmt="Native",
                    settings={**_INSERT_SETTINGS, "insert_deduplication_token": token},
                )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
