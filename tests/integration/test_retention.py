"""Rows that are older than the retention go, by arrival, and the rollups with them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.platform.settings import Settings, load
from schemas.tables import DEAD_LETTERS, EVENTS
from sinks.clickhouse_connection import connect
from sinks.migrator import migrate, planned_after
from tests import stack
from tests.integration.sink_support import until
from tests.integration.test_rollups import TRUTH

OLD, LATE, NEW = "350612075190001", "350612075190002", "350612075190003"


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.ClickHouse]:
    """A server of this module's own."""
    clickhouse = stack.ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    clickhouse.start()
    yield clickhouse
    clickhouse.end_if_running()


def settings_of(clickhouse: stack.ClickHouse, days: int | None) -> Settings:
    retention = {} if days is None else {"EVENTPUSH_CLICKHOUSE_RETENTION_D": str(days)}
    return load({"EVENTPUSH_CLICKHOUSE_URL": clickhouse.url} | retention)


@pytest.fixture
async def client(clickhouse: stack.ClickHouse) -> AsyncIterator[AsyncClient]:
    """A client, and an empty database without a retention."""
    client = await connect(settings_of(clickhouse, None))
    await client.command("DROP DATABASE IF EXISTS telematics SYNC")
    await migrate(client, settings_of(clickhouse, None))
    yield client
    await client.close()


async def store(client: AsyncClient, imei: str, happened_d: int, arrived_d: int, hours: int = 0) -> None:
    """An event that happened and arrived so many days ago."""
    await client.command(
        f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at) SELECT"
        f" generateUUIDv4(), 'sos', '{imei}', now64(6) - INTERVAL {happened_d} DAY + INTERVAL {hours} HOUR,"
        f" now64(6) - INTERVAL {arrived_d} DAY"
    )


async def store_all(client: AsyncClient) -> None:
    """Old ones, late ones beside them, new ones, and two dead letters; the rollups took them in an hour ago."""
    await store(client, OLD, 40, 40)
    await store(client, OLD, 9, 9, hours=3)
    await store(client, LATE, 40, 1)
    await store(client, LATE, 9, 9)
    await store(client, NEW, 2, 2)
    await client.command(
        f"INSERT INTO {DEAD_LETTERS.store} (dead_letter_id, stage, received_at) SELECT generateUUIDv4(), 'streams',"
        " now64(6) - INTERVAL 9 * number DAY FROM numbers(2)"
    )
    await refresh(client, *(f"{rollup}_refresh" for rollup in TRUTH))
    await client.command(f"ALTER TABLE {EVENTS.store} UPDATE inserted_at = now64(6) - INTERVAL 1 HOUR WHERE 1",
                         settings={"mutations_sync": 1})  # fmt: skip


async def refresh(client: AsyncClient, *views: str) -> None:
    for verb in ("REFRESH", "WAIT"):
        for view in views:
            await client.command(f"SYSTEM {verb} VIEW telematics.{view}")


async def rows(client: AsyncClient, sql: str) -> list[Any]:
    return sorted((await client.query(sql)).result_rows, key=repr)


async def expect_exact(client: AsyncClient, *rollups: str) -> None:
    for rollup in rollups:
        assert await rows(client, f"SELECT * FROM telematics.{rollup}") == await rows(client, TRUTH[rollup]), rollup


async def test_expired_rows_go_and_rollups_follow(client: AsyncClient, clickhouse: stack.ClickHouse) -> None:
    """Events and dead letters go by their arrival: what came late stays. No rollup counts what is gone."""
    await store_all(client)
    counted = [rollup for rollup in TRUTH if rollup != "device_latest"]
    settings = settings_of(clickhouse, 8)
    assert await migrate(client, settings) == ["rows are kept 8 days"]

    async def gone() -> bool:
        await expect_exact(client, *counted)
        return len(await rows(client, f"SELECT imei FROM {EVENTS.view}")) == 2

    await client.command(f"OPTIMIZE TABLE {EVENTS.store} FINAL")
    await client.command(f"OPTIMIZE TABLE {DEAD_LETTERS.store} FINAL")
    await until("expired events are gone", gone)
    assert await rows(client, f"SELECT imei FROM {EVENTS.view}") == [(LATE,), (NEW,)]
    assert await rows(client, f"SELECT count() FROM {DEAD_LETTERS.view}") == [(1,)]
    await refresh(client, "retention_refresh", "device_latest_refresh")
    await expect_exact(client, *TRUTH)


async def test_what_a_restart_left_is_found(client: AsyncClient, clickhouse: stack.ClickHouse) -> None:
    """Rows that went without a mark: the next minute's marks find the hours and the devices that still show them."""
    await store_all(client)
    await migrate(client, settings_of(clickhouse, 8))
    await client.command("SYSTEM STOP VIEW telematics.retention_refresh")
    await client.command(f"OPTIMIZE TABLE {EVENTS.store} FINAL")
    await client.command("TRUNCATE TABLE telematics.rollup_marks")
    stale = await rows(client, "SELECT imei FROM telematics.device_latest")
    assert (OLD,) in stale
    await client.command("SYSTEM START VIEW telematics.retention_refresh")
    await refresh(client, "retention_refresh")
    await expect_exact(client, *TRUTH)
    await refresh(client, *(f"{rollup}_refresh" for rollup in TRUTH))
    await client.command("TRUNCATE TABLE telematics.rollup_marks")
    await expect_exact(client, *TRUTH)
    await refresh(client, "retention_refresh")
    assert await rows(client, "SELECT hour, imei FROM telematics.rollup_marks") == []


async def test_the_setting_is_applied_changed_and_taken_back(client: AsyncClient, clickhouse: stack.ClickHouse) -> None:
    """Each once: what is as it should be is left alone."""

    async def ttls() -> list[Any]:
        return await rows(
            client,
            "SELECT name, extract(create_table_query, ' TTL (.*?) SETTINGS') AS ttl FROM system.tables"
            " WHERE database = 'telematics' AND ttl LIKE '%received_at%'",
        )

    for days in (30, 60):
        kept = f"toDateTime(received_at) + toIntervalDay({days})"
        assert len(await planned_after(client, settings_of(clickhouse, days))) == 5
        assert await migrate(client, settings_of(clickhouse, days)) == [f"rows are kept {days} days"]
        assert await migrate(client, settings_of(clickhouse, days)) == []
        assert await ttls() == [("dead_letters_store", kept), ("events_store", kept)]
    assert await migrate(client, settings_of(clickhouse, None)) == ["rows are kept without end"]
    assert await migrate(client, settings_of(clickhouse, None)) == []
    assert await ttls() == []
