"""What analysts wait for: twelve questions through the exact view, on the table below it, and through rollups.

A year of events is made in ClickHouse, partitions and rollups come to rest, and each question is asked while nothing
else happens and again while 2,000 rows/s come in. A figure is the best of three answers.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.benchmark_stack import wait_until
from bench.measured_process import MeasuredProcess
from bench.results import Section
from embedded.preflight import free_ports
from runtime.platform.settings import load
from schemas.migration_steps import Partition
from schemas.tables import EVENTS
from sinks.clickhouse_connection import connect
from sinks.migrator import migrate

ROWS, _QUICK_ROWS = 20_000_000, 500_000
_DEVICES = 5_000
_BLOCK_ROWS = 1_000_000
_ASKED = 3
_INSERT_ROWS, _INSERT_EVERY_S = 400, 0.2  # 2,000 rows/s, in inserts of the sink's linger
_ROLLUPS = ("events_hourly", "events_daily", "device_latest")
_REST_S = 1_800.0

#: Events of a year up to now: numbers from {first} of {rows}, spread evenly over time, devices and types.
_INSERT = """
INSERT INTO telematics.events_store (event_id, event, changes, imei, device_time, server_time, received_at, latitude,
    longitude, location, geofence_name, category, severity, h3_r7, h3_r9, time_zone, device_time_local, imei_valid, tac,
    device_delay_ms, platform_delay_ms, vehicle, fleet, driver, extra, receipt_id, raw, inserted_at)
SELECT generateUUIDv4(), type, h % 60, toString(350612075000000 + device), at, at + 1.2, at + 1.5,
    22 + device % 100 / 100, 75 + device % 77 / 100, concat('Road ', toString(device % 500)),
    if(startsWith(type, 'geofence'), concat('Depot ', toString(h % 40)), NULL), 'driving', 'warning',
    609069382156419071 + device % 300, 618076581399625727 + device % 3000, 'Asia/Kolkata', at + INTERVAL 330 MINUTE,
    true, '35061207', 1200, 300, concat('MP09-', toString(device)), concat('fleet ', toString(device % 20)),
    concat('driver ', toString(device % 4000)), '{{}}', toString(number), ('telematics.raw.v1', device % 4, number),
    at + 2
FROM (
    SELECT number, intHash32(number) AS h, intHash32(number + 7) % {devices} AS device,
        ['overspeed', 'overspeed', 'overspeed', 'geofence_enter', 'geofence_exit', 'fuel_fill', 'fuel_drain', 'sos']
            [1 + intHash32(number + 13) % 8] AS type,
        now64(6, 'UTC') - INTERVAL {age_s} SECOND + toIntervalMicrosecond(number * {step_us}) AS at
    FROM numbers({first}, {count}))
"""
_YEAR_S = 365 * 86_400

_MONTH = "device_time >= today() - 31 AND device_time < today() - 1"
_DAY = "device_time >= today() - 10 AND device_time < today() - 9"
_SHOWN = "device_time, event, changes, location, latitude, longitude"
_DEVICE = "imei = '350612075000042'"


@dataclass(frozen=True)
class Question:
    """A question as SQL over `{source}`; the view's own way to ask it, and a rollup's, where there are such."""

    text: str
    sql: str
    view: str = ""
    rollup: str = ""
    of_today: bool = False
    note: str = ""


QUESTIONS = (
    Question(
        "all events",
        "SELECT count() FROM {source}",
        rollup="SELECT sum(events) FROM telematics.events_hourly",
        note="the table's count is a number in its metadata, and counts repeats",
    ),
    Question(
        "events by type and day, a year",
        "SELECT event, toDate(device_time) AS day, count() FROM {source} GROUP BY event, day",
        rollup="SELECT event, toDate(hour) AS day, sum(events) FROM telematics.events_hourly GROUP BY event, day",
    ),
    Question(
        "the last hour by arrival",
        "SELECT event, count() FROM {source} WHERE received_at >= now() - INTERVAL 1 HOUR GROUP BY event",
        view="SELECT event, count() FROM telematics.events_received(begin = now() - INTERVAL 1 HOUR, end = now())"
        " GROUP BY event",
        of_today=True,
    ),
    Question(
        "latest event of each device",
        "SELECT imei, max(device_time), argMax(event, device_time) FROM {source} GROUP BY imei",
        rollup="SELECT imei, device_time, event FROM telematics.device_latest",
        of_today=True,
    ),
    Question(
        "a fleet by type, 30 days",
        f"SELECT event, count() FROM {{source}} WHERE fleet = 'fleet 7' AND {_MONTH} GROUP BY event",
        rollup="SELECT event, sum(events) FROM telematics.events_daily"
        " WHERE fleet = 'fleet 7' AND day >= today() - 31 AND day < today() - 1 GROUP BY event",
    ),
    Question("one device, one day", f"SELECT {_SHOWN} FROM {{source}} WHERE {_DEVICE} AND {_DAY}"),
    Question("one device, 30 days", f"SELECT {_SHOWN} FROM {{source}} WHERE {_DEVICE} AND {_MONTH}"),
    Question("one device, one day, all columns", f"SELECT * FROM {{source}} WHERE {_DEVICE} AND {_DAY}"),
    Question(
        "top ten drivers by overspeed, 30 days",
        f"SELECT driver, count() AS n, max(changes) FROM {{source}} WHERE event = 'overspeed' AND {_MONTH}"
        " GROUP BY driver ORDER BY n DESC LIMIT 10",
    ),
    Question(
        "H3 map of fuel drains, 30 days",
        f"SELECT h3_r7, count() FROM {{source}} WHERE event = 'fuel_drain' AND {_MONTH} GROUP BY h3_r7",
    ),
    Question(
        "one event by its id",
        "SELECT * FROM {source} WHERE event_id = '{event_id}'",
        view="SELECT * FROM telematics.event_by_id(id = '{event_id}')",
    ),
    Question(
        "geofence enter and exit pairs, a day",
        "SELECT imei, event, device_time, leadInFrame(device_time) OVER (PARTITION BY imei, geofence_name ORDER BY"
        " device_time ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM {source}"
        f" WHERE event IN ('geofence_enter', 'geofence_exit') AND {_DAY}",
    ),
)


class Warehouse:
    """An embedded ClickHouse with the schema, and a client of its HTTP interface."""

    def __init__(self, process: MeasuredProcess, url: str, session: aiohttp.ClientSession) -> None:
        self.process = process
        self._url = url
        self._session = session

    async def run(self, sql: str) -> str:
        """Run a statement and return the answer as tab-separated text; raise RuntimeError with ClickHouse's message."""
        async with self._session.post(self._url, data=sql.encode()) as response:
            text = await response.text()
        if response.status != 200:
            raise RuntimeError(text[:500])
        return text.strip()

    async def seconds(self, sql: str) -> float:
        """Return the best time of three answers."""
        best = float("inf")
        for _ in range(_ASKED):
            begun = time.perf_counter()
            await self.run(sql)
            best = min(best, time.perf_counter() - begun)
        return best

    async def fill(self, rows: int) -> None:
        """Insert a year's events, block by block."""
        for first in range(0, rows, _BLOCK_ROWS):
            count = min(_BLOCK_ROWS, rows - first)
            await self.insert(rows, first, count, _YEAR_S)

    async def insert(self, rows: int, first: int, count: int, age_s: int) -> None:
        """Insert events number `first` up to `first + count` of a year that begins `age_s` ago."""
        step_us = _YEAR_S * 1_000_000 // rows
        sql = _INSERT.format(devices=_DEVICES, first=first, count=count, age_s=age_s, step_us=step_us)
        await self.run(sql + "SETTINGS max_partitions_per_insert_block = 0")

    async def rest(self) -> None:
        """Wait until every partition is one part and the rollups have taken in everything."""
        age = f"ALTER TABLE {EVENTS.store} MODIFY SETTING min_age_to_force_merge_seconds = "
        await self.run(age + "1")
        parts = "SELECT count() = uniqExact(partition) FROM system.parts WHERE active AND table = 'events_store'"
        async with asyncio.timeout(_REST_S):
            while await self.run(parts) != "1":  # noqa: ASYNC110 - ClickHouse has no event for it
                await asyncio.sleep(0.5)
            for rollup in _ROLLUPS:
                behind = (
                    f"SELECT (SELECT max(inserted_at) FROM {EVENTS.store}) >"
                    f" (SELECT max(through) FROM telematics.{rollup}_store)"
                )
                while await self.run(behind) != "0":
                    await self.run(f"SYSTEM REFRESH VIEW telematics.{rollup}_refresh")
                    await self.run(f"SYSTEM WAIT VIEW telematics.{rollup}_refresh")
        await self.run(age + EVENTS.settings["min_age_to_force_merge_seconds"])

    @asynccontextmanager
    async def rows_coming_in(self) -> AsyncIterator[list[int]]:
        """Insert 2,000 rows/s of now; yields a list whose length is the number of inserts so far."""
        done: list[int] = []

        async def keep_inserting() -> None:
            while True:
                begun = time.monotonic()
                await self.insert(_YEAR_S * 2_000, len(done) * _INSERT_ROWS, _INSERT_ROWS, 1)
                done.append(_INSERT_ROWS)
                await asyncio.sleep(max(0.0, _INSERT_EVERY_S - (time.monotonic() - begun)))

        task = asyncio.create_task(keep_inserting())
        try:
            yield done
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def measure(*, quick: bool, rows: int = 0, partition: Partition = "week") -> Section:
    """Measure the questions over `rows` events (0: 20 million, or half a million when quick).

    Another number of rows is a section of its own.
    """
    rows = rows or (_QUICK_ROWS if quick else ROWS)
    section = Section("analysts" if rows in {ROWS, _QUICK_ROWS} else f"analysts, {rows / 1e6:g} million rows")
    async with _warehouse(partition) as warehouse:
        begun = time.monotonic()
        await warehouse.fill(rows)
        filled_s = time.monotonic() - begun
        await warehouse.rest()
        rested_s = time.monotonic() - begun - filled_s
        note = f"{_DEVICES:,} devices, a year, partitions of a {partition}; made in {filled_s:.0f} s"
        section.add("rows", rows, "rows", note=note + f", merged and rolled up in {rested_s:.0f} s")
        section.add("size on disk", float(await warehouse.run(_SIZE)) / rows, "bytes per row")
        for rollup in _ROLLUPS:
            section.add(
                f"rows of {rollup}", float(await warehouse.run(f"SELECT count() FROM telematics.{rollup}")), "rows"
            )
        event_id = await warehouse.run(f"SELECT event_id FROM {EVENTS.store} WHERE {_DAY} LIMIT 1")
        await _ask(section, warehouse, "idle", event_id)
        async with warehouse.rows_coming_in() as inserts:
            await asyncio.sleep(5)
            begun = time.monotonic()
            before = len(inserts)
            await _ask(section, warehouse, "inserting", event_id)
            rate = (len(inserts) - before) * _INSERT_ROWS / (time.monotonic() - begun)
        section.add("inserting: rows that came in", rate, "rows/s")
    return section


_SIZE = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'events_store'"


async def _ask(section: Section, warehouse: Warehouse, state: str, event_id: str) -> None:
    for question in QUESTIONS:
        view_sql = (question.view or question.sql).format(source=EVENTS.view, event_id=event_id)
        table_s = await warehouse.seconds(question.sql.format(source=EVENTS.store, event_id=event_id))
        view_s = await warehouse.seconds(view_sql)
        target = 3.0 if question.of_today else 1.3
        section.add(f"{state}: {question.text}: table", table_s * 1_000, "ms")
        section.add(f"{state}: {question.text}: view", view_s * 1_000, "ms")
        section.add(f"{state}: {question.text}: view ÷ table", view_s / table_s, "", target=target, sense="at_most",
                    note=question.note)  # fmt: skip
        if question.rollup:
            rollup_ms = await warehouse.seconds(question.rollup) * 1_000
            section.add(f"{state}: {question.text}: rollup", rollup_ms, "ms", target=300, sense="at_most")


@asynccontextmanager
async def _warehouse(partition: Partition) -> AsyncIterator[Warehouse]:
    with tempfile.TemporaryDirectory(prefix="eventpush-bench-", ignore_cleanup_errors=True) as home:
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        settings = {"EVENTPUSH_CLICKHOUSE_URL": url, "EVENTPUSH_CLICKHOUSE_PARTITION": partition}
        arguments = ("-m", "embedded.clickhouse", "--port", str(port), "--data-dir", f"{home}/clickhouse")
        process = MeasuredProcess((sys.executable, *arguments), settings, Path(home) / "clickhouse.log")
        try:
            await wait_until(lambda: "ready on" in process.log_file.read_text(), process, "ClickHouse")
            client = await connect(load(settings))
            await migrate(client, load(settings))
            await client.close()
            timeout = aiohttp.ClientTimeout(total=None)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                yield Warehouse(process, url, session)
        finally:
            await process.stop()
