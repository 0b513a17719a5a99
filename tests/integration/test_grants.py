"""What the printed grants do, on the real engine: who has only them sees views, and nothing else."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from eventpush.grants import FLEET_VIEWS, OPEN_VIEWS, PAYLOAD_VIEWS, statements
from schemas.migration_steps import MIGRATIONS, bootstrap
from schemas.tables import EVENTS
from schemas.views import VIEWS
from sinks.view_security import statements_for
from tests import stack

OWNER = "owner"
#: Privileges of a sink's user.
_ALL = ("GRANT ALL ON *.*",)
_POLICY = re.compile(r"CREATE ROW POLICY OR REPLACE `fleet (\w+)` ON (\S+) USING (.*) TO `fleet \w+`")


def users(grants: Iterable[str], policies: Iterable[tuple[str, str]] = ()) -> str:
    """A users file: the connected user has these grants and row policies, and `owner` has everything."""
    filters = "".join(
        f"<{name}><filter>{escape(condition)}</filter></{name}>"
        for name, condition in ((view.partition(".")[2], condition) for view, condition in policies)
    )
    access = f"<databases><telematics>{filters}</telematics></databases>" if filters else ""
    return "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>" + "".join(
        f"<{name}><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>"
        f"<grants>{''.join(f'<query>{grant}</query>' for grant in granted)}</grants>{rows}</{name}>"
        for name, granted, rows in (("default", grants, access), (OWNER, _ALL, ""))
    ) + "</users></clickhouse>"  # fmt: skip


def execute(home: Path, users_file: str, statements: Sequence[str]) -> list[tuple[list[Any] | None, str | None]]:
    """The answers of an engine of its own."""
    (home / "users.xml").write_text(users_file)
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.restricted_engine", str(home / "data"), str(home / "users.xml")],
        input=json.dumps(statements), capture_output=True, text=True, cwd=stack.ROOT, timeout=120, check=True,
    )  # fmt: skip
    answers: list[tuple[list[Any] | None, str | None]] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema whose views run with the rights of `owner`, events of two fleets, and a dead letter."""
    home = tmp_path_factory.mktemp("grants")
    insert = (
        f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at, changes, fleet, geofence_name)"
        " SELECT generateUUIDv4(), ['overspeed', 'sos', 'fuel_drain', 'geofence_enter'][1 + number % 4],"
        " ['350612075190001', '350612075190002'][1 + (number DIV 4) % 2], now64(6) - INTERVAL 1 HOUR + number,"
        " now64(6), 50, ['North', 'South'][1 + (number DIV 4) % 2], 'Depot' FROM numbers(8)"
    )
    registry = (
        "INSERT INTO telematics.devices_store (imei, intervals, offset) VALUES"
        " ('350612075190001', [('A', 'North', NULL, NULL, NULL)], 1),"
        " ('350612075190002', [('B', 'South', NULL, NULL, NULL)], 2),"
        " ('350612075190003', [('C', 'North', NULL, NULL, NULL)], 3),"
        " ('350612075190004', [('D', 'South', NULL, NULL, NULL)], 4)"
    )
    made = [*bootstrap(None), *(statement for step in MIGRATIONS for statement in step.statements(None))]
    definitions = (
        "SELECT concat(database, '.', name), create_table_query FROM system.tables WHERE database = 'telematics'"
    )
    for answer, error in execute(home, users(_ALL), [*made, insert, registry]):
        assert error is None, (answer, error)
    ((rows, _),) = execute(home, users(_ALL), [definitions])
    secured = statements_for(dict(rows or []), OWNER, None)
    assert all(error is None for _, error in execute(home, users(_ALL), secured))
    return home


def granted(role: str) -> list[str]:
    """The role's grants, as a users file takes them."""
    found = [line.partition(" TO ") for line in statements(["North"], None) if line.startswith("GRANT SELECT")]
    return [grant for grant, _, roles in found if role in roles.split(", ")]


def calls(views: Iterable[str]) -> dict[str, str]:
    """Each view as FROM names it: with a period, where it takes one."""
    period = "(begin = now64(6) - INTERVAL 1 DAY, end = now64(6) + INTERVAL 1 DAY)"
    parameters = {view.full_name: period for view in VIEWS if view.parameters} | {f"{EVENTS.view}_received": period}
    parameters["telematics.event_by_id"] = "(id = '0198c5d6-0000-7000-8000-0123456789ab')"
    return {view: view + parameters.get(view, "") for view in views}


@pytest.mark.parametrize(
    ("role", "views"),
    [("analyst", OPEN_VIEWS), ("dashboard", OPEN_VIEWS), ("dead_letter_reader", PAYLOAD_VIEWS),
     ("fleet_reader", FLEET_VIEWS)],
)  # fmt: skip
def test_a_role_reads_its_views_and_nothing_else(home: Path, role: str, views: tuple[str, ...]) -> None:
    """Without any right on a table; other views, tables, writing and making things are refused."""
    sources = list(calls(views).values())
    others = [source for view, source in calls((*OPEN_VIEWS, *PAYLOAD_VIEWS)).items() if view not in views]
    refused = [
        *(f"SELECT count() FROM {source}" for source in (*others, EVENTS.store, "telematics.devices_store")),
        f"INSERT INTO {EVENTS.store} (event) VALUES ('x')",
        "CREATE TABLE telematics.mine (x Int64) ENGINE = Memory",
        f"DROP TABLE {EVENTS.view}",
    ]
    answers = execute(home, users(granted(role)), [*(f"SELECT * FROM {source}" for source in sources), *refused])
    assert [error for _, error in answers[: len(sources)] if error] == []
    assert all("ACCESS_DENIED" in str(error) for _, error in answers[len(sources) :]), answers[len(sources) :]


def test_a_fleets_readers_see_their_fleet(home: Path) -> None:
    """In every view with a fleet, whatever it reads below, each has rows of one fleet only; some would have others."""
    policies = [(match[2], match[3]) for line in statements(["North"], None) if (match := _POLICY.fullmatch(line))]
    assert [view for view, _ in policies] == list(FLEET_VIEWS)
    sources = [source for view, source in calls(FLEET_VIEWS).items() if view != "telematics.event_by_id"]
    questions = [f"SELECT DISTINCT fleet FROM {source} ORDER BY fleet" for source in sources]
    everything = execute(home, users(granted("analyst")), questions)
    seen = execute(home, users(granted("fleet_reader"), policies), questions)
    assert [rows for rows, _ in everything] == [[["North"], ["South"]]] * len(sources)
    assert [(source, rows) for source, (rows, _) in zip(sources, seen, strict=True) if rows != [["North"]]] == []


def test_a_reader_pays_no_more_than_the_owner(home: Path) -> None:
    """Conditions reach the table through a view that runs with its owner's rights."""
    question = f"EXPLAIN indexes = 1 SELECT count() FROM {EVENTS.view} WHERE event = 'sos'"
    (owner, reader) = (execute(home, users(grants), [question])[0] for grants in (_ALL, granted("analyst")))
    assert reader == owner
    assert any("Condition: " in row[0] and "'sos'" in row[0] for row in reader[0] or []), reader


def test_every_statement_is_read_by_the_engine(home: Path) -> None:
    """All of them, with and without a cluster, are statements of ClickHouse's grammar."""
    printed = [line for cluster in (None, "main") for line in statements(["North", "O'Hare"], cluster)]
    answers = execute(home, users(_ALL), [f"EXPLAIN AST {line}" for line in printed])
    assert [(line, error) for line, (_, error) in zip(printed, answers, strict=True) if error] == []


def test_every_view_has_a_reader(home: Path) -> None:
    """A new view is granted to somebody, or named here with the reason why not."""
    ((rows, _),) = execute(
        home, users(_ALL),
        ["SELECT concat(database, '.', name) FROM system.tables WHERE database = 'telematics' AND engine = 'View'"],
    )  # fmt: skip
    assert {name for (name,) in rows or []} == {*OPEN_VIEWS, *PAYLOAD_VIEWS}


@pytest.mark.containers
def test_the_statements_run_on_the_official_image() -> None:
    """Twice; then a user with a role reads its views, and a fleet's user its fleet."""
    with stack.clickhouse_container() as url:
        port = int(url.rpartition(":")[2])
        admin = clickhouse_connect.get_client(host="127.0.0.1", port=port)
        made = [*bootstrap(None), *(statement for step in MIGRATIONS for statement in step.statements(None))]
        for statement in [*made, *statements(["North"], None) * 2]:
            admin.command(statement)
        found = admin.query("SELECT concat(database, '.', name), create_table_query FROM system.tables"
                            " WHERE database = 'telematics'").result_rows  # fmt: skip
        for statement in statements_for({str(name): str(query) for name, query in found}, "default", None):
            admin.command(statement)
        admin.command(
            f"INSERT INTO {EVENTS.store} (event_id, event, imei, device_time, received_at, fleet) SELECT"
            " generateUUIDv4(), 'sos', '350612075190001', now64(6), now64(6), ['North', 'South'][1 + number]"
            " FROM numbers(2)"
        )
        for user, role, fleets in (("a", "analyst", 2), ("d", "dashboard", 2), ("f", "`fleet North`", 1)):
            admin.command(f"CREATE USER {user} IDENTIFIED WITH no_password DEFAULT ROLE {role}")
            reader = clickhouse_connect.get_client(host="127.0.0.1", port=port, username=user)
            _expect_fleets(reader, fleets)
        assert admin.query(f"SELECT count() FROM {EVENTS.view}").result_rows == [(2,)]


def _expect_fleets(reader: Client, fleets: int) -> None:
    """As many fleets as that in each view; a longer time is allowed, one beyond the bound and tables are not."""
    for source in ("telematics.events", "telematics.events_daily"):
        asked = f"SELECT uniqExact(fleet) FROM {source}"
        assert reader.query(asked, settings={"max_execution_time": 200}).result_rows == [(fleets,)]
        with pytest.raises(Exception, match="SETTING_CONSTRAINT_VIOLATION"):
            reader.query(asked, settings={"max_execution_time": 100_000})
    with pytest.raises(Exception, match="ACCESS_DENIED"):
        reader.query(f"SELECT count() FROM {EVENTS.store}")
