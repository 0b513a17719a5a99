"""The schema in a real ClickHouse: what the registry says, reached by any road, and quick to ask."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.platform import settings as settings_module
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.migration_steps import LATEST, MIGRATIONS, TABLE, Partition, bootstrap
from schemas.tables import DATABASE, DEAD_LETTERS, EVENTS, INSERTED_AT, TABLES, Table
from sinks.clickhouse_connection import connect
from sinks.migrator import migrate, planned
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
async def test_a_dry_run_shows_all_and_changes_nothing(client: AsyncClient, settings: Settings) -> None:
    """On an empty server it plans every step, behind an old schema the rest; no table is made."""
    assert [step.version for step, _ in await planned(client, settings)] == list(range(1, LATEST + 1))
    assert await column(client, "SELECT count() FROM system.databases WHERE name = 'telematics'") == [0]
    await migrate(client, settings)
    assert await planned(client, settings) == []


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


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_the_schema_after_all_steps_is_the_declared_one(
    client: AsyncClient, settings: Settings, table: Table
) -> None:
    """Name, type, codec and comment of every column, keys and indexes, in the table and in the view."""
    await migrate_afresh(client, settings)
    await expect_declared(client, table)


async def expect_declared(client: AsyncClient, table: Table) -> None:
    """What ClickHouse says of the table and its view is what the declaration says."""
    declared = [(c.name, c.type, c.comment) for c in (*table.columns, INSERTED_AT)]
    derived = [(c.name, c.type, c.comment) for c in table.derived]
    for name in (table.view, table.store):
        rows = (await client.query(f"DESCRIBE TABLE {name}")).result_rows
        found = [(row[0], re.sub(r"\s+", " ", row[1]).replace("( ", "("), row[4]) for row in rows]
        assert [row for row in found if row[0] != "precedence"] == declared + (derived if name == table.view else [])
    codecs = (await client.query(
        "SELECT name, compression_codec FROM system.columns WHERE database = 'telematics'"
        f" AND table = '{table.name}_store' AND name != 'precedence' ORDER BY position"
    )).result_rows  # fmt: skip
    assert [(name, re.sub(r"Delta\(\d+\)", "Delta", codec)) for name, codec in codecs] == [
        (c.name, f"CODEC({c.codec})" if c.codec else "") for c in (*table.columns, INSERTED_AT)
    ]
    (keys,) = (await client.query(
        "SELECT partition_key, sorting_key FROM system.tables"
        f" WHERE database = 'telematics' AND name = '{table.name}_store'"
    )).result_rows  # fmt: skip
    assert keys == (table.partition_by, table.order_by)
    indexes = (await client.query(
        "SELECT concat('INDEX ', name, ' ', expr, ' TYPE ', type_full, ' GRANULARITY ', toString(granularity))"
        f" FROM system.data_skipping_indices WHERE database = 'telematics' AND table = '{table.name}_store'"
    )).result_rows  # fmt: skip
    assert tuple(index for (index,) in indexes) == table.indexes
    assert {name: value for name, value in (await table_settings(client, table.store)).items()
            if name not in {"index_granularity", "non_replicated_deduplication_window"}} == table.settings  # fmt: skip


async def table_settings(client: AsyncClient, name: str) -> dict[str, str]:
    """The settings of a table of the database, as ClickHouse shows them."""
    (engine,) = await column(
        client, f"SELECT engine_full FROM system.tables WHERE concat(database, '.', name) = '{name}'"
    )
    return dict(re.findall(r"(\w+) = (\w+)", engine.partition(" SETTINGS ")[2]))


async def test_an_idle_partition_becomes_one_part(client: AsyncClient, settings: Settings) -> None:
    """Whatever came late and however old the partition, it is merged to one part: here after a second."""
    await migrate_afresh(client, settings)
    await client.command(f"ALTER TABLE {EVENTS.store} MODIFY SETTING min_age_to_force_merge_seconds = 1,"
                         " merge_selecting_sleep_ms = 200, max_merge_selecting_sleep_ms = 400")  # fmt: skip
    insert = (
        f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at) SELECT"
        " toUUID('0198c5d6-0000-7000-8000-0123456789ab'), 'sos', '350612075190001', toDateTime64('{day}', 6, 'UTC'),"
        " now64(6) FROM numbers(1)"
    )
    for day in ("2024-06-28", "2024-06-29", "2024-06-28", "2025-01-01", "2024-06-30"):
        await client.command(insert.format(day=day))
    parts = (
        "SELECT concat(partition, ' ', toString(count()), ' ', toString(sum(rows))) FROM system.parts"
        f" WHERE active AND database = '{DATABASE}' AND table = '{EVENTS.name}_store' GROUP BY partition ORDER BY 1"
    )
    async with asyncio.timeout(60):
        while await column(client, parts) != ["202406 1 3", "202501 1 1"]:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("length", get_args(Partition))
async def test_a_new_installation_chooses_its_partitions(client: AsyncClient, length: Partition) -> None:
    """The setting decides the partition key; repeats and a late row are one row each in the view."""
    await client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
    settings = settings_module.load({"EVENTPUSH_CLICKHOUSE_PARTITION": length})
    await migrate(client, settings)
    for day in ("2024-06-28", "2026-06-28", "2026-06-28"):
        await client.command(
            f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at) SELECT"
            f" toUUID('0198c5d6-0000-7000-8000-0123456789ab'), 'sos', '350612075190001',"
            f" toDateTime64('{day} 23:59:59', 6, 'UTC'), now64(6)"
        )
    assert await column(client, f"SELECT count() FROM {EVENTS.view}") == [2]
    assert await column(
        client, f"SELECT uniqExact(partition) FROM system.parts WHERE active AND table = '{EVENTS.name}_store'"
    ) == [2]


async def test_a_database_of_0_1_0_is_taken_over_without_rebuilding(client: AsyncClient, settings: Settings) -> None:
    """Its rows and parts stay, its recorded step is recognised, and later steps bring it to the declared schema."""
    await client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
    for statement in (*bootstrap(None), *MIGRATIONS[0].statements(None)):
        await client.command(statement)
    released = "4c84532c1c1bfbed210f004b1323ae72d412e3cc7d5113fc9eb87ed269df6d2e"
    step = [[1, "events and dead letters", released]]
    await client.insert(TABLE, step, column_names=["version", "name", "checksum"])
    await client.command(
        f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at, location)"
        " SELECT generateUUIDv4(), 'sos', '350612075195931', toDateTime64('2026-09-01', 6, 'UTC') + number, now64(6),"
        " 'Depot' FROM numbers(1000)"
    )
    question = f"SELECT uuid FROM system.tables WHERE database = '{DATABASE}' AND name = '{EVENTS.name}_store'"
    before = await column(client, question)
    assert len(await migrate(client, settings)) == LATEST - 1
    assert await column(client, question) == before
    assert await column(client, f"SELECT count() FROM {EVENTS.view} WHERE location = 'Depot' AND empty(warnings)") == [
        1000
    ]
    for table in TABLES:
        await expect_declared(client, table)


async def test_the_sink_of_0_1_0_can_write_after_every_expanding_step(client: AsyncClient, settings: Settings) -> None:
    """Its insert names the columns of 0.1.0, with the types of then."""
    await migrate_afresh(client, settings)
    assert all(step.expands for step in MIGRATIONS)
    await client.command(
        f"INSERT INTO {EVENTS.store} (event_id, event, changes, imei, device_time, server_time, received_at, latitude,"
        " longitude, location, geofence_name, category, severity, h3_r7, h3_r9, time_zone, device_time_local,"
        " imei_valid, tac, device_delay_ms, platform_delay_ms, vehicle, fleet, driver, extra, receipt_id, raw)"
        " SELECT generateUUIDv4(), 'sos', 1, '350612075195931', now64(6), now64(6), now64(6), 22.9, 75.5, 'Depot',"
        " NULL, 'emergency', 'critical', 609069382156419071, 618076581399625727, 'Asia/Kolkata', now64(6), true,"
        " '35061207', 0, 0, NULL, NULL, NULL, '{}', NULL, ('telematics.raw.v1', 0, 0)"
    )
    assert await column(client, f"SELECT count() FROM {EVENTS.view}") == [1]


async def test_a_conflict_names_its_fields_and_both_values(client: AsyncClient, settings: Settings) -> None:
    """Beside the accepted event, what was refused and where they differ; spellings of one value are no difference."""
    await migrate_afresh(client, settings)
    await client.command(
        f"INSERT INTO {EVENTS.store} (event_id, event, changes, imei, device_time, server_time, received_at, latitude,"
        " longitude, location, extra) VALUES ('b42ed2be-4d46-2cd9-e3bd-dfac9dcd1633', 'sos', 50, '350612075195931',"
        " '2024-06-28 17:52:13', '2024-06-28 18:49:45', '2024-06-28 18:49:46', 22.5, 75.5, 'Depot', '{\"seq\":1}')"
    )
    payload = (
        '{"Event":"sos","Changes":51,"Device_Time":"2024-06-28T17:52:13.000000+0000","IMEI":"350612075195931",'
        '"Server_Time":"2024-06-28T18:49:45Z","Coordinates":"22.50, 75.5","Location":"Depot","seq":2}'
    )
    columns = ["dead_letter_id", "stage", "payload", "payload_encoding", "conflict_with_event_id"]
    conflict = "b42ed2be-4d46-2cd9-e3bd-dfac9dcd1633"
    row = ["0198c5d6-0000-7000-8000-0123456789ab", "streams", payload, "utf-8", conflict]
    await client.insert(DEAD_LETTERS.store, [row], column_names=columns)
    (differences,) = await column(client, f"SELECT differences FROM {DATABASE}.conflicts")
    assert [tuple(d.values()) if isinstance(d, dict) else tuple(d) for d in differences] == [
        ("Changes", "50", "51"),
        ("seq", "1", "2"),
    ]


async def migrate_afresh(client: AsyncClient, settings: Settings) -> None:
    """The schema, whatever other tests left."""
    await client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
    await migrate(client, settings)


async def test_common_questions_read_few_granules(client: AsyncClient, settings: Settings) -> None:
    """A device or a type in a period, the last arrivals: through the view, of a million rows, a small part is read."""
    await migrate_afresh(client, settings)
    await client.command(
        f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at)"
        " SELECT generateUUIDv4(), ['overspeed', 'sos', 'fuel_fill', 'geofence_enter'][1 + rand() % 4],"
        " toString(350612075190000 + rand(1) % 999), toDateTime64('2026-09-01', 6, 'UTC') + number * 2 AS at, at + 3"
        " FROM numbers(1000000)"
    )
    view, hour = EVENTS.view, ("2026-09-10 10:00:00", "2026-09-10 11:00:00")
    questions = {
        "device": f"{view} WHERE imei = '350612075190042' AND toDate(device_time) = '2026-09-10'",
        "type": f"{view} WHERE event = 'sos' AND device_time >= '{hour[0]}' AND device_time < '{hour[1]}'",
        "arrival": f"{view}_received(begin = '{hour[0]}', end = '{hour[1]}')",
    }
    for what, source in questions.items():
        explained = await column(client, f"EXPLAIN indexes = 1 SELECT count() FROM {source}")
        (read, of) = re.findall(r"Granules: (\d+)/(\d+)", "\n".join(explained))[-1]
        (total,) = await column(
            client, "SELECT toInt32(sum(marks)) FROM system.parts WHERE active AND table = 'events_store'"
        )
        assert int(read) <= 0.15 * total, f"{what}: {read} of {of}, {total} in all"


async def test_arrivals_are_exact(client: AsyncClient, settings: Settings) -> None:
    """`events_received` shows what `events` shows of the period, without repeats of events that came before it."""
    await migrate_afresh(client, settings)
    for second in (0, 50):  # the second time, everything comes again
        await client.command(
            f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at) SELECT"
            " reinterpretAsUUID(number), ['sos', 'power_cut'][1 + number % 2], '350612075190001',"
            f" toDateTime64('2026-09-01', 6, 'UTC') + number, toDateTime64('2026-09-02', 6, 'UTC') + number + {second}"
            " FROM numbers(100)"
        )
    period = "(begin = '2026-09-02 00:00:40', end = '2026-09-02 00:01:20')"
    received = await column(client, f"SELECT event_id FROM {EVENTS.view}_received{period} ORDER BY device_time")
    assert received == await column(
        client,
        f"SELECT event_id FROM {EVENTS.view} WHERE received_at >= '2026-09-02 00:00:40'"
        " AND received_at < '2026-09-02 00:01:20' ORDER BY device_time",
    )
    assert len(received) == 40


async def test_an_h3_cell_is_that_of_clickhouse(client: AsyncClient) -> None:
    """A known value pins the order of geoToH3's arguments, which changed in ClickHouse 25.5."""
    assert await column(client, "SELECT geoToH3(22.927968, 75.533275, 7)") == [609069382156419071]
