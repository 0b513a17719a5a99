"""Rollups equal the same query over the exact view at every moment, whatever happened to the rows before."""

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.migration_steps import MIGRATIONS, bootstrap
from schemas.tables import DATABASE, EVENTS
from tests import stack

_MEASURES = (
    "count(), uniqExact(imei), {vehicles} sum(changes), min(changes), max(changes), sum(device_delay_ms),"
    " max(device_delay_ms), sum(platform_delay_ms), max(platform_delay_ms)"
)
#: What each rollup says, asked of the exact view.
TRUTH = {
    "events_hourly": "SELECT toStartOfHour(device_time), event, category, severity, fleet, sender,"
    f" {_MEASURES.format(vehicles='uniqExact(vehicle),')} FROM telematics.events GROUP BY ALL",
    "events_daily": "SELECT toDate(device_time), event, category, severity, fleet, vehicle, sender,"
    f" {_MEASURES.format(vehicles='')} FROM telematics.events GROUP BY ALL",
    "events_daily_as_of": "SELECT toDate(device_time), event, category, severity, fleet, vehicle, driver,"
    f" {_MEASURES.format(vehicles='')} FROM telematics.events_as_of GROUP BY ALL",
    "device_latest": "SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category,"
    " severity, vehicle, fleet, driver, received_at, event_id FROM telematics.events"
    " ORDER BY imei, device_time DESC, event_id DESC LIMIT 1 BY imei",
}
#: What the stores hold by themselves.
STORED = {
    "events_hourly": "SELECT * EXCEPT (through, computed_at) FROM telematics.events_hourly_store FINAL"
    " WHERE events > 0 AND hour < '2106-02-07 06:00:00'",
    "events_daily": "SELECT * EXCEPT (through, computed_at) FROM telematics.events_daily_store FINAL"
    " WHERE events > 0 AND day < '2149-06-06'",
    "events_daily_as_of": "SELECT * EXCEPT (through, computed_at) FROM telematics.events_daily_as_of_store FINAL"
    " WHERE events > 0 AND day < '2149-06-06'",
    "device_latest": "SELECT * EXCEPT (present, through, computed_at) FROM telematics.device_latest_store FINAL"
    " WHERE present AND imei != '~'",
}
#: So that seconds do what takes hours: how far a look goes back, how much a refresh takes in, and its blocks.
QUICKER = {
    "INTERVAL 5 MINUTE": "INTERVAL 1 SECOND",
    "REFRESH EVERY 1 MINUTE": "REFRESH EVERY 1 DAY",
    "5000000": "60",
    "max_insert_threads = 1,": "max_insert_threads = 1, min_insert_block_size_rows = 5, max_block_size = 5,",
}
_COLUMNS = (
    "event_id, event, changes, imei, device_time, received_at, device_delay_ms, platform_delay_ms, category, severity,"
    " fleet, vehicle, sender, driver, location"
)


def _quicker(statement: str) -> str:
    for slow, quick in QUICKER.items():
        statement = statement.replace(slow, quick)
    return statement


@dataclass
class Warehouse:
    """A ClickHouse with rollups that can be killed, and what was done to it."""

    server: stack.ClickHouse
    client: Client = field(init=False)

    def connect(self) -> None:
        self.client = clickhouse_connect.get_client(host="127.0.0.1", port=self.server.port)

    def create(self) -> None:
        """An empty schema, quicker than the real one."""
        self.client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
        for statement in [*bootstrap(None), *(s for step in MIGRATIONS for s in step.statements(None))]:
            self.client.command(_quicker(statement))

    def empty(self) -> None:
        """No rows anywhere."""
        for name in ("events_store", "rollup_marks", "devices_store", *(f"{rollup}_store" for rollup in TRUTH)):
            self.client.command(f"TRUNCATE TABLE telematics.{name}")

    def insert(self, seed: int, rows: int, years_ago: int) -> None:
        """Events of four devices within two days of a year, some without fleet, vehicle or sender."""
        self.client.command(f"""
            INSERT INTO {EVENTS.store} ({_COLUMNS})
            WITH cityHash64(number, {seed}) AS r
            SELECT reinterpretAsUUID(r), ['sos', 'overspeed', 'fuel_drain'][1 + r % 3], r % 50 - 10,
                concat('35061207519000', toString(r % 4)),
                toDateTime64('2026-06-01', 6, 'UTC') - INTERVAL {years_ago} YEAR + r % 172800,
                toDateTime64('2026-06-10', 6, 'UTC') + r % 1000, r % 777, r % 33, 'driving',
                ['info', 'critical'][1 + r % 2], [NULL, '', 'Indore'][1 + r % 3], [NULL, '', 'MP09'][1 + (r DIV 3) % 3],
                [NULL, 'platform'][1 + (r DIV 9) % 2], 'A. Rao', NULL
            FROM numbers({rows})""")

    def repeat(self, seconds: int, share: int) -> None:
        """The same events again, with an arrival so many seconds later, and other measures: the earlier one counts."""
        self.client.command(f"""
            INSERT INTO {EVENTS.store} ({_COLUMNS}) SELECT * REPLACE (
                received_at + {seconds} AS received_at, changes + 1000 AS changes, 'replayed' AS fleet)
            FROM (SELECT {_COLUMNS} FROM {EVENTS.view} WHERE cityHash64(event_id) % {share} = 0)""")

    def attribute(self, device: int, day: int, driver: str) -> None:
        """Correct a device's history as the sink does: mark the days that the change is about, then write it."""
        imei, since = f"35061207519000{device}", f"2026-06-0{day} 12:00:00"
        self.client.command(
            "INSERT INTO telematics.rollup_marks (hour) SELECT DISTINCT toStartOfDay(device_time)"
            f" FROM {EVENTS.store} WHERE imei = '{imei}'"
        )
        self.client.command(
            "INSERT INTO telematics.devices_store (imei, intervals, offset) SELECT"
            f" '{imei}', [('MP09', 'Indore', 'A. Rao', NULL, '{since}'), ('MP10', NULL, '{driver}', '{since}', NULL)],"
            " (SELECT max(offset) + 1 FROM telematics.devices_store)"
        )

    def erase(self, device: int) -> None:
        """Delete a device as an erasure does: mark what it touches, delete, mark again."""
        imei = f"35061207519000{device}"
        mark = (
            "INSERT INTO telematics.rollup_marks (hour, imei) SELECT DISTINCT toStartOfHour(device_time), imei"
            f" FROM {EVENTS.store} WHERE imei = '{imei}'"
        )
        again = (
            "INSERT INTO telematics.rollup_marks (hour, imei) SELECT hour, imei FROM telematics.rollup_marks"
            f" WHERE imei = '{imei}'"
        )
        for statement in (mark, f"DELETE FROM {EVENTS.store} WHERE imei = '{imei}'", again):
            self.client.command(statement)

    def refresh(self) -> None:
        """Every rollup once, to the end."""
        for rollup in TRUTH:
            self.client.command(f"SYSTEM REFRESH VIEW telematics.{rollup}_refresh")
        for rollup in TRUTH:
            self.client.command(f"SYSTEM WAIT VIEW telematics.{rollup}_refresh")

    def interrupted_refresh(self, rows: int) -> None:
        """What a refresh leaves that was killed before its watermark: some of its rows."""
        for rollup in ("events_hourly", "events_daily"):
            select = self.client.query(
                f"SELECT as_select FROM system.tables WHERE database = 'telematics' AND name = '{rollup}_refresh'"
            ).result_rows[0][0]
            bucket = "hour < '2106-02-07 06:00:00'" if rollup == "events_hourly" else "day < '2149-06-06'"
            self.client.command(
                f"INSERT INTO telematics.{rollup}_store SELECT * FROM ({select}) WHERE {bucket} LIMIT {rows}"
            )

    def merge(self) -> None:
        """Everything into one part."""
        for name in ("events_store", *(f"{rollup}_store" for rollup in TRUTH)):
            self.client.command(f"OPTIMIZE TABLE telematics.{name} FINAL")

    def kill_while_refreshing(self) -> None:
        """Kill the server while its rollups are refreshed, and start it again."""
        for rollup in TRUTH:
            self.client.command(f"SYSTEM REFRESH VIEW telematics.{rollup}_refresh")
        self.server.end(signal.SIGKILL)
        self.server.start()
        self.connect()

    def settle(self) -> None:
        """Refresh until no row is newer than what the watermarks reach: the views read their stores only."""
        end = time.monotonic() + 60
        done = "SELECT min(w) FROM (" + " UNION ALL ".join(
            f"SELECT max(through) AS w FROM telematics.{rollup}_store" for rollup in TRUTH
        ) + ")"  # fmt: skip
        newest = (
            f"SELECT greatest((SELECT max(inserted_at) FROM {EVENTS.store}),"
            " (SELECT max(inserted_at) FROM telematics.rollup_marks))"
        )
        while self.client.query(f"SELECT ({newest}) > ({done}) - INTERVAL 1 SECOND").result_rows[0][0]:
            assert time.monotonic() < end, "the rollups do not catch up"
            self.refresh()
            time.sleep(0.1)

    def rows(self, sql: str) -> list[Any]:
        return sorted(self.client.query(sql).result_rows, key=repr)

    def check(self) -> None:
        """Each view is what its query says over the exact view."""
        for rollup, truth in TRUTH.items():
            assert self.rows(f"SELECT * FROM telematics.{rollup}") == self.rows(truth), rollup

    def check_stores(self) -> None:
        """The same of the stores alone, when everything was refreshed."""
        for rollup, truth in TRUTH.items():
            assert self.rows(STORED[rollup]) == self.rows(truth), rollup


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """One server, with a schema whose rollups are quicker."""
    warehouse = Warehouse(stack.ClickHouse(tmp_path_factory.mktemp("clickhouse")))
    warehouse.server.start()
    warehouse.connect()
    warehouse.create()
    yield warehouse
    warehouse.server.end_if_running()


_STEPS = st.one_of(
    st.tuples(st.just("insert"), st.integers(0, 3), st.integers(1, 40), st.sampled_from([0, 0, 0, 1, 7])),
    st.tuples(st.just("repeat"), st.sampled_from([-50, 50]), st.integers(1, 3)),
    st.tuples(st.just("erase"), st.integers(0, 3)),
    st.tuples(st.just("attribute"), st.integers(0, 3), st.integers(1, 2), st.sampled_from(["B. Sen", "C. Das"])),
    st.tuples(st.just("refresh")),
    st.tuples(st.just("interrupted_refresh"), st.integers(1, 10)),
    st.tuples(st.just("merge")),
    st.tuples(st.just("settle")),
)


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(st.lists(_STEPS, min_size=4, max_size=8))
def test_rollups_equal_their_query_after_any_history(warehouse: Warehouse, steps: list[tuple[Any, ...]]) -> None:
    """After each step of any history each rollup is exact, and at the end the stores are, without the view's help."""
    warehouse.empty()
    warehouse.insert(9, 30, 0)
    for name, *arguments in steps:
        getattr(warehouse, name)(*arguments)
        warehouse.check()
    warehouse.settle()
    warehouse.check()
    warehouse.check_stores()


def test_a_settled_rollup_reads_its_store(warehouse: Warehouse) -> None:
    """Where nothing was inserted, nothing is counted again: rows that are deleted without a mark are still counted."""
    warehouse.empty()
    warehouse.insert(1, 40, 0)
    warehouse.settle()
    warehouse.client.command(f"DELETE FROM {EVENTS.store} WHERE 1")
    for rollup in TRUTH:
        assert warehouse.rows(f"SELECT * FROM telematics.{rollup}") == warehouse.rows(STORED[rollup]) != []


def test_rollups_are_exact_after_a_kill(warehouse: Warehouse) -> None:
    """A server that is killed in the middle of its refreshes serves exact rollups, and completes the stores."""
    warehouse.empty()
    for seed in range(2):
        warehouse.insert(seed, 200, seed)
        warehouse.kill_while_refreshing()
        warehouse.check()
    warehouse.erase(1)
    warehouse.settle()
    warehouse.check()
    warehouse.check_stores()


def test_the_watermark_is_written_last(warehouse: Warehouse) -> None:
    """A refresh of several blocks writes its watermark in the last one: what is interrupted has none."""
    warehouse.empty()
    for rollup in ("events_hourly", "events_daily"):
        warehouse.client.command(f"SYSTEM STOP MERGES telematics.{rollup}_store")
    warehouse.insert(5, 50, 0)
    warehouse.refresh()
    for rollup, end in (("events_hourly", "hour = '2106-02-07 06:00:00'"), ("events_daily", "day = '2149-06-06'")):
        parts = warehouse.rows(
            f"SELECT toUInt32(splitByChar('_', _part)[2]) AS block, max({end}) FROM telematics.{rollup}_store"
            " GROUP BY block"
        )
        assert len(parts) > 3, f"{rollup} was written at once: {parts}"
        assert [watermark for _, watermark in sorted(parts)] == [0] * (len(parts) - 1) + [1]
        warehouse.client.command(f"SYSTEM START MERGES telematics.{rollup}_store")


def test_the_limits_of_the_test_are_those_of_the_schema() -> None:
    """Every text that the quicker schema replaces is in the real one."""
    sql = " ".join(statement for step in MIGRATIONS for statement in step.statements(None))
    assert all(re.search(re.escape(slow), sql) for slow in QUICKER)
