"""The schema in a real ClickHouse: what the registry says, reached by any road, and quick to ask."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.platform import settings as settings_module
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.migration_steps import LATEST, TABLE
from schemas.tables import DATABASE, DEAD_LETTERS, EVENTS, INSERTED_AT, TABLES, Table
from sinks.clickhouse_writer import connect
from sinks.migrator import migrate
from tests import stack


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.ClickHouse]:
    """A ClickHouse of this module's own."""
    clickhouse = stack.ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    clickhouse.start()
    yield clickhouse
    clickhouse.end_if_running()


@pytest.fixture
def settings(clickhouse: stack.ClickHouse) -> Settings:
    return settings_module.load({"EVENTPUSH_CLICKHOUSE_URL": clickhouse.url})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncClient]:
    client = await connect(settings)
    yield client
    await client.close()


@pytest.fixture
async def empty(client: AsyncClient) -> None:
    """No schema at all."""
    await client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")


async def column(client: AsyncClient, sql: str) -> list[Any]:
    """The first column of the answer."""
    return [row[0] for row in (await client.query(sql)).result_rows]


@pytest.mark.usefixtures("empty")
async def test_migrations_are_taken_once(client: AsyncClient, settings: Settings) -> None:
    """The first run takes every step and says so, the second none."""
    assert len(await migrate(client, settings)) == LATEST
    assert await migrate(client, settings) == []


@pytest.mark.usefixtures("empty")
async def test_two_migrations_at_once_end_well(client: AsyncClient, settings: Settings) -> None:
    """Two workers that start together make one schema."""
    other = await connect(settings)
    await asyncio.gather(migrate(client, settings), migrate(other, settings))
    await other.close()
    assert await column(client, f"SELECT version FROM {TABLE} FINAL ORDER BY version") == list(range(1, LATEST + 1))


@pytest.mark.usefixtures("empty")
async def test_an_interrupted_migration_is_taken_up(client: AsyncClient, settings: Settings) -> None:
    """Half of a step was done, and it is not in the list: it is done again, and what is there stays."""
    await migrate(client, settings)
    await client.command(f"TRUNCATE TABLE {TABLE}")
    await client.command(f"DROP TABLE {DEAD_LETTERS.store} SYNC")
    assert len(await migrate(client, settings)) == LATEST
    assert await column(client, f"SELECT count() FROM {DEAD_LETTERS.view}") == [0]


@pytest.mark.usefixtures("empty")
async def test_a_newer_schema_is_refused(client: AsyncClient, settings: Settings) -> None:
    """And nothing is changed in it."""
    await migrate(client, settings)
    await client.insert(TABLE, [[LATEST + 1, "of tomorrow", "…"]], column_names=["version", "name", "checksum"])
    with pytest.raises(OperatorError, match=f"knows versions up to {LATEST}"):
        await migrate(client, settings)


@pytest.mark.parametrize("table", TABLES)
async def test_columns_are_those_of_the_registry(client: AsyncClient, settings: Settings, table: Table) -> None:
    """Name, type and comment of every column, as ClickHouse tells them, in the table and in the view."""
    await migrate_afresh(client, settings)
    expected = [(c.name, c.type, c.comment) for c in (*table.columns, INSERTED_AT)]
    for name in (table.view, table.store):
        told = (await client.query(f"DESCRIBE TABLE {name}")).result_rows
        found = [(row[0], re.sub(r"\s+", " ", row[1]).replace("( ", "("), row[4]) for row in told]
        assert [row for row in found if row[0] != "precedence"] == expected


async def migrate_afresh(client: AsyncClient, settings: Settings) -> None:
    """The schema, whatever other tests left."""
    await client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
    await migrate(client, settings)


async def test_both_questions_read_few_granules(client: AsyncClient, settings: Settings) -> None:
    """A device in a period, a type in a period: through the view, of a million rows, a small part is read."""
    await migrate_afresh(client, settings)
    await client.command(
        f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at)"
        " SELECT generateUUIDv4(), ['overspeed', 'sos', 'fuel_fill', 'geofence_enter'][1 + rand() % 4],"
        " toString(350612075190000 + rand(1) % 999), toDateTime64('2026-09-01', 6, 'UTC') + number * 2, now64(6)"
        " FROM numbers(1000000)"
    )
    questions = {
        "device": "imei = '350612075190042' AND device_time >= '2026-09-10' AND device_time < '2026-09-11'",
        "type": "event = 'sos' AND device_time >= '2026-09-10 10:00:00' AND device_time < '2026-09-10 11:00:00'",
    }
    for what, where in questions.items():
        explained = await column(client, f"EXPLAIN indexes = 1 SELECT count() FROM {EVENTS.view} WHERE {where}")
        (read, of) = re.findall(r"Granules: (\d+)/(\d+)", "\n".join(explained))[-1]
        (total,) = await column(
            client, "SELECT toInt32(sum(marks)) FROM system.parts WHERE active AND table = 'events_store'"
        )
        assert int(read) <= 0.15 * total, f"{what}: {read} of {of}, {total} in all"


async def test_an_h3_cell_is_that_of_clickhouse(client: AsyncClient) -> None:
    """A known value pins the order of geoToH3's arguments, which changed in ClickHouse 25.5."""
    assert await column(client, "SELECT geoToH3(22.927968, 75.533275, 7)") == [609069382156419071]
