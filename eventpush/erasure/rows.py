"""Erase from ClickHouse: mark what the rollups must compute again, delete physically, compute, then clean the rollups.

Each step may run again after an interruption: what tells the hours to compute, the marks, is deleted last.
"""

import asyncio
import time
from collections.abc import Sequence

from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush.erasure.subject import Subject
from runtime.platform.errors import OperatorError
from schemas.erasure import Kind
from schemas.personal_data import DAILY, DAILY_AS_OF, DERIVED, HOURLY, PAYLOAD, ROLLUPS, SOURCES, PersonalTable, Rollup
from schemas.tables import DATABASE, DEAD_LETTERS, EVENTS

_MARKS = f"{DATABASE}.rollup_marks"
_REFRESH_S = 300.0
_QUERY_BYTES_MAX = 64 * 2**20


class Rows:
    """The rows about a subject."""

    def __init__(self, client: AsyncClient, cluster: str | None, subject: Subject) -> None:
        self._client = client
        self._on_cluster = f" ON CLUSTER `{cluster}`" if cluster else ""
        self._subject = subject

    async def erase(self) -> dict[str, int]:
        """Delete them from every table; return the number of rows deleted from each."""
        await self._mark_before()
        deleted = {table.name: await self._delete(table) for table in SOURCES}
        await self._mark_again()
        await self._refresh()
        await self._clean(HOURLY, "hour", "toUInt32(hour)")
        for rollup in (DAILY, DAILY_AS_OF):
            await self._clean(rollup, "day", "toUInt16(toDate(hour))")
        return deleted | {table.name: await self._delete(table) for table in DERIVED}

    async def count(self, table: PersonalTable) -> int:
        """Count the rows about the subject, replaced versions included."""
        condition = self._condition(table)
        return await self._number(f"SELECT count() FROM {table.name} WHERE {condition}") if condition else 0  # noqa: S608

    async def mentions(self) -> dict[str, int]:
        """Count the rows of any table that have the IMEI in any column of text, declared or not, by table."""
        if self._subject.imei is None:
            return {}
        found = await self._client.query(
            "SELECT c.table, groupArray(c.name) FROM system.columns AS c"
            " JOIN system.tables AS t ON t.database = c.database AND t.name = c.table"
            " WHERE c.database = {database:String} AND t.engine LIKE '%MergeTree' AND c.type LIKE '%String%'"
            " GROUP BY c.table ORDER BY c.table",
            parameters={"database": DATABASE},
        )
        return {
            f"{DATABASE}.{table}": await self._number(
                f"SELECT countIf({' OR '.join(_mentions(column) for column in columns)}) FROM {DATABASE}.`{table}`"  # noqa: S608
            )
            for table, columns in found.result_rows
        }

    def _condition(self, table: PersonalTable) -> str:
        return table.condition(device=self._subject.imei is not None, driver=self._subject.driver is not None)

    async def _mark_before(self) -> None:
        (events,) = [table for table in SOURCES if table.name == EVENTS.store]
        await self._client.command(
            f"INSERT INTO {_MARKS} (hour, imei) SELECT DISTINCT toStartOfHour(device_time), imei"  # noqa: S608
            f" FROM {events.name} WHERE {self._condition(events)}",
            parameters=self._subject.parameters,
        )
        (devices,) = [table for table in SOURCES if table.name == f"{DATABASE}.devices_store"]
        await self._client.command(  # whose events have another driver as soon as the history is gone
            f"INSERT INTO {_MARKS} (hour) SELECT DISTINCT toStartOfHour(device_time) FROM {events.name}"  # noqa: S608
            f" WHERE imei IN (SELECT imei FROM {devices.name} WHERE {self._condition(devices)})",
            parameters=self._subject.parameters,
        )

    async def _mark_again(self) -> None:
        """Set all marks again: after an interruption nothing else says which hours had rows."""
        await self._client.command(
            f"INSERT INTO {_MARKS} (hour, imei) SELECT DISTINCT hour, imei FROM {_MARKS}"  # noqa: S608
            f" UNION DISTINCT SELECT DISTINCT hour, '' FROM {_MARKS}"
        )

    async def _delete(self, table: PersonalTable) -> int:
        """Delete by a mutation, which rewrites the parts: a lightweight DELETE would only hide the rows."""
        rows = await self.count(table)
        if rows:
            condition, parameters = self._condition(table), dict[str, object](self._subject.parameters)
            if table.key:
                found = await self._client.query(
                    f"SELECT DISTINCT toString({table.key}) FROM {table.name} WHERE {condition}",  # noqa: S608
                    parameters=parameters,
                )
                keys = ", ".join(f"'{key}'" for (key,) in found.result_rows)
                condition = f"{table.key} IN ({keys})"
            await self._mutate(table.name, condition)
        return rows

    async def _clean(self, rollup: Rollup, column: str, bucket: str) -> None:
        """Delete the replaced versions of the buckets that were computed again, and those that have no events now."""
        found = await self._client.query(f"SELECT DISTINCT {bucket} FROM {_MARKS}")  # noqa: S608
        buckets = ", ".join(str(number) for (number,) in found.result_rows)
        if buckets:
            done = await self._client.query(
                f"SELECT toString(max(computed_at)) FROM {rollup.store} WHERE {rollup.watermark}"  # noqa: S608
            )
            computed = f"computed_at < toDateTime64('{done.result_rows[0][0]}', 6, 'UTC')"
            kind = "UInt32" if column == "hour" else "UInt16"
            await self._mutate(rollup.store, f"to{kind}({column}) IN ({buckets}) AND (events = 0 OR {computed})")

    async def _refresh(self) -> None:
        """Compute the marked buckets again, and wait for it."""
        marked = await self._client.query(f"SELECT count(), toString(max(inserted_at)) FROM {_MARKS}")  # noqa: S608
        count, newest = marked.result_rows[0]
        if not count:
            return
        deadline = time.monotonic() + _REFRESH_S
        behind = [rollup.name for rollup in ROLLUPS]
        while behind:
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"the rollups {', '.join(behind)} are not computed again after {_REFRESH_S:g} s",
                    "see system.view_refreshes for the reason, then run the same command again: it continues",
                )
            for name in behind:
                await self._client.command(f"SYSTEM REFRESH VIEW {DATABASE}.{name}_refresh")
            for name in behind:
                await self._client.command(f"SYSTEM WAIT VIEW {DATABASE}.{name}_refresh")
            behind = [rollup.name for rollup in ROLLUPS if await self._is_behind(rollup, str(newest))]
            await asyncio.sleep(0.2)

    async def _is_behind(self, rollup: Rollup, moment: str) -> bool:
        return not await self._number(
            f"SELECT max(through) > toDateTime64('{moment}', 6, 'UTC') FROM {rollup.store} WHERE {rollup.watermark}"  # noqa: S608
        )

    async def _mutate(self, table: str, condition: str) -> None:
        await self._client.command(
            f"ALTER TABLE {table}{self._on_cluster} DELETE WHERE {condition}",
            parameters=self._subject.parameters,
            settings={"mutations_sync": 2, "max_query_size": _QUERY_BYTES_MAX},
        )

    async def _number(self, query: str) -> int:
        found = await self._client.query(query, parameters=self._subject.parameters)
        return int(found.result_rows[0][0])


async def names_in(client: AsyncClient) -> dict[Kind, list[str]]:
    """Return the IMEIs of events, of registered devices and in payloads of dead letters, and the names of drivers."""
    history = f"{DATABASE}.devices_store"
    queries: dict[Kind, str] = {
        "device": f"SELECT imei FROM {EVENTS.store} UNION DISTINCT"  # noqa: S608
        f" SELECT arrayJoin(extractAll({PAYLOAD}, '[0-9]{{15}}')) FROM {DEAD_LETTERS.store}"
        f" UNION DISTINCT SELECT imei FROM {history}",
        "driver": f"SELECT DISTINCT assumeNotNull(driver) FROM {EVENTS.store} WHERE driver IS NOT NULL"  # noqa: S608
        f" UNION DISTINCT SELECT assumeNotNull(held.driver) FROM {history} ARRAY JOIN intervals AS held"
        " WHERE held.driver IS NOT NULL",
    }
    return {kind: [name for (name,) in (await client.query(query)).result_rows] for kind, query in queries.items()}


def _mentions(column: str) -> str:
    return f"position(toString(`{column}`), {{imei:String}}) > 0"


def declared_tables() -> Sequence[PersonalTable]:
    """Return every declared table."""
    return (*SOURCES, *DERIVED)
