"""Every query for analysts in the documents is executed, and its answer is the one that the page shows."""

import json
import re
from collections.abc import Iterator
from typing import Any

import clickhouse_connect
import pytest

from tests import stack
from tests.contract.test_deploy import DASHBOARDS, as_the_plugin_sends
from tests.integration import pictures, simulated_fleet
from tests.integration.cookbook import PAGES, answer, queries
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


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_drawn_of_the_fleet(reporting: Reporting, name: str) -> None:
    """It has marks for what its query found, and the page shows the file that `python -m tests.integration.cookbook`
    writes.
    """
    figure = pictures.PICTURES[name](reporting)
    (axes, *_) = figure.axes
    points = sum(len(line.get_xdata()) for line in axes.lines)
    cells = sum(len(drawn.get_paths()) for drawn in axes.collections)
    assert len(axes.patches) + points + cells > 10
    assert f"({pictures.file_of(name).name})" in PAGES[0].read_text(encoding="utf-8")
    assert pictures.file_of(name).exists()


def test_the_data_frames_are_those_of_the_page(reporting: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's Python for pandas and Arrow runs as it is, but for the address and the user."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setattr(clickhouse_connect, "get_client", lambda **_: reporting.client)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - what a reader would run
    assert names["frame"]["events"].sum() > 1_000
    assert names["arrow"].num_rows >= len(names["frame"])


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
