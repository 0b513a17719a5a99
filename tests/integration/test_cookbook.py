"""Every query for analysts in the documents is executed, and its answer is the one that the page shows."""

import json
from collections.abc import Iterator

import pytest

from tests import stack
from tests.contract.test_deploy import DASHBOARDS, as_the_plugin_sends
from tests.integration import simulated_fleet
from tests.integration.cookbook import answer, queries
from tests.integration.reporting import Reporting

QUERIES = list(queries())
#: The panels of the dashboards for analysts, by dashboard and title.
PANELS = {
    f"{path.stem}: {panel['title']}": panel["targets"][0]["rawSql"]
    for path in DASHBOARDS if path.stem != "eventpush"
    for panel in json.loads(path.read_text())["panels"]
}  # fmt: skip


@pytest.fixture(scope="module")
def reporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reporting]:
    """A server with the simulated fleet."""
    reporting = Reporting(stack.ClickHouse(tmp_path_factory.mktemp("clickhouse")))
    reporting.start()
    simulated_fleet.fill(reporting)
    yield reporting
    reporting.client.close()
    reporting.server.end_if_running()


def test_there_are_twenty_recipes_and_ten_questions() -> None:
    """Each with an answer of at least one row."""
    assert len(QUERIES) >= 30
    assert all(len(table.splitlines()) > 2 for _, table in QUERIES)


@pytest.mark.parametrize(("query", "table"), QUERIES, ids=[query.split()[1].strip(",") for query, _ in QUERIES])
def test_a_query_has_the_answer_that_is_shown(reporting: Reporting, query: str, table: str) -> None:
    """`python -m tests.integration.cookbook` renews the answers after a change of the views."""
    assert answer(reporting, query) == table


def test_the_export_is_parquet(reporting: Reporting) -> None:
    """The statement of the page gives a whole Parquet file with the month's events."""
    sql = (
        "SELECT * EXCEPT (raw) FROM telematics.events WHERE device_time >= '2024-06-01' AND device_time < '2024-07-01'"
    )
    data = reporting.client.raw_query(sql, fmt="Parquet")
    assert data[:4] == data[-4:] == b"PAR1"
    assert len(data) > 10_000


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_the_fleet(reporting: Reporting, panel: str) -> None:
    """Each panel of the dashboards for analysts has something to show of the simulated fleet's fortnight."""
    sql = as_the_plugin_sends(PANELS[panel], "2024-06-28 00:00:00", "2024-07-13 00:00:00", "'North','South','West'")
    assert reporting.ask(sql)
