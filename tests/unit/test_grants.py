"""The SQL for those who only read: what is granted, to whom, and within which limits."""

from pathlib import Path

from click.testing import CliRunner

from eventpush.cli import cli
from eventpush.grants import FLEET_VIEWS, PAYLOAD_VIEWS, statements
from schemas.tables import TABLES
from tests.unit.cli_support import logging_as_it_was  # noqa: F401 - a fixture

#: What was reviewed. `eventpush grants --fleet Indore > tests/unit/grants.sql` renews it.
GOLDEN = Path(__file__).parent / "grants.sql"


def test_the_statements_are_the_reviewed_ones() -> None:
    """Word for word, as an administrator gets them."""
    result = CliRunner().invoke(cli, ["grants", "--fleet", "Indore"])
    assert result.exit_code == 0
    assert result.stdout == GOLDEN.read_text()


def test_nobody_gets_a_table_or_payloads_by_the_way() -> None:
    """Only SELECT, only on views; those with payloads only for their role, and never by fleet."""
    grants = [line.split() for line in statements(["North"], None) if line.startswith("GRANT SELECT")]
    assert len(grants) == len([line for line in statements(["North"], None) if line.startswith("GRANT")]) - 1
    granted: dict[str, set[str]] = {}
    for words in grants:
        granted.setdefault(words[3], set()).update(word.strip(",") for word in words[5:])
    assert not set(granted) & {table.store for table in TABLES}
    assert not [view for view in granted if view.endswith("_store")]
    assert all(granted[view] == {"dead_letter_reader"} for view in PAYLOAD_VIEWS)
    assert {view for view, roles in granted.items() if "fleet_reader" in roles} == set(FLEET_VIEWS)


def test_names_of_fleets_are_quoted() -> None:
    """Quotes and backslashes stay inside of names and texts; what is no name is refused."""
    fleet = "O'Hare `x` \\"
    lines = statements([fleet], None)
    assert any(line.endswith("USING fleet = 'O\\'Hare `x` \\\\' TO `fleet O'Hare \\`x\\` \\\\`") for line in lines)
    assert CliRunner().invoke(cli, ["grants", "--fleet", "a\nb"]).exit_code == 2


def test_in_a_cluster_everything_is_on_all_servers() -> None:
    """ON CLUSTER in every statement, where ClickHouse expects it."""
    lines = statements(["North"], "main")
    assert all(line.count("ON CLUSTER `main`") == 1 for line in lines)
    assert "GRANT ON CLUSTER `main` fleet_reader TO `fleet North`" in lines
