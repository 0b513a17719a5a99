"""A ClickHouse with the schema, and events in it as analysts find them: late, out of order, and some of them twice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from schemas.migration_steps import MIGRATIONS, bootstrap
from schemas.tables import DATABASE, DEAD_LETTERS, EVENTS, Table
from schemas.views import View
from tests import stack

IMEI = "350612075195931"
_FILLED = {"category": "other", "severity": "info", "driver": "A. Rao", "vehicle": "MP09", "fleet": "Indore"}


@dataclass
class Reporting:
    """The questions and the rows of one server."""

    server: stack.ClickHouse
    client: Client = field(init=False)

    def start(self) -> None:
        """Start the server and create the schema."""
        self.server.start()
        self.client = clickhouse_connect.get_client(host="127.0.0.1", port=self.server.port)
        for statement in [*bootstrap(None), *(s for step in MIGRATIONS for s in step.statements(None))]:
            self.client.command(statement)

    def empty(self) -> None:
        """Remove all rows."""
        found = self.client.query(
            f"SELECT name FROM system.tables WHERE database = '{DATABASE}' AND engine LIKE '%MergeTree'"
        )
        for (name,) in found.result_rows:
            if name != "schema_migrations":
                self.client.command(f"TRUNCATE TABLE {DATABASE}.{name}")

    def store(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Store events the last first, a second later each, and the first half once more with another arrival."""
        rows = [self._event(n, event) for n, event in enumerate(events)]
        self._insert(EVENTS, rows[::-1])
        self._insert(
            EVENTS, [row | {"received_at": "2026-07-01 00:00:00", "changes": -1} for row in rows[: len(rows) // 2]]
        )

    def register(self, imei: str, *intervals: tuple[str, str | None, str | None]) -> None:
        """Give a device its history: driver, beginning and end of each interval."""
        held = [{"fleet": "Indore", "driver": driver, "valid_from": begin, "valid_to": end}
                for driver, begin, end in intervals]  # fmt: skip
        body = json.dumps({"imei": imei, "intervals": held}).encode()
        self.client.raw_insert(f"{DATABASE}.devices_store", insert_block=body, fmt="JSONEachRow")

    def store_dead_letters(self, letters: Sequence[Mapping[str, Any]]) -> None:
        """Store dead letters."""
        self._insert(DEAD_LETTERS, [{"dead_letter_id": _uuid(n), "stage": "streams"} | dict(letter)
                                    for n, letter in enumerate(letters)])  # fmt: skip

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a question as ClickHouse writes them in JSON."""
        return [json.loads(line) for line in self.client.raw_query(sql, fmt="JSONEachRow",
                settings={"output_format_json_quote_64bit_integers": 0}).splitlines()]  # fmt: skip

    def report(self, view: View, columns: str, begin: str, end: str) -> list[list[Any]]:
        """Return the named columns of a view over a period, in their order."""
        called = f"{view.full_name}(begin = '{begin}', end = '{end}')" if view.parameters else view.full_name
        return [list(row.values()) for row in self.ask(f"SELECT {columns} FROM {called} ORDER BY ALL")]

    def described(self, view: View) -> list[tuple[str, str, str]]:
        """Return name, type and comment of the view's columns."""
        called = f"(SELECT * FROM {view.full_name}(begin = now(), end = now()))" if view.parameters else view.full_name
        rows = self.client.query(f"DESCRIBE TABLE {called}").result_rows
        return [(row[0], " ".join(row[1].split()).replace("( ", "("), row[4]) for row in rows]

    def _insert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            body = json.dumps(dict(row)).encode()
            self.client.raw_insert(table.store, insert_block=body, fmt="JSONEachRow")

    @staticmethod
    def _event(n: int, event: Mapping[str, Any]) -> dict[str, Any]:
        at = event["device_time"]
        given = {"event_id": _uuid(n), "imei": IMEI, "received_at": at, "server_time": at, "device_time_local": at}
        return _FILLED | given | dict(event)


def _uuid(n: int) -> str:
    return f"0198c5d6-0000-7000-8000-{n:012d}"
