"""ClickHouse's columns are the fields of the records on the topics: same names, fitting types, nothing missing."""

import re
import types
from collections.abc import Container
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from schemas.fields import fields_of
from schemas.migration_steps import LATEST, MIGRATIONS, Partition, bootstrap
from schemas.tables import TABLES, Table

FITS: dict[Any, str] = {
    str: r"String|LowCardinality\(String\)|UUID|UInt64|DateTime64\(6, 'UTC'\)",
    int: r"Int64|UInt64",
    float: "Float64",
    bool: "Bool",
    msgspec.Raw: "String",
    list: r"Array\((Tuple\(.*\)|LowCardinality\(String\))\)",
}

#: What was released: a step whose SQL changes would leave old databases behind. Add a step instead.
RELEASED = {1: "4c84532c1c1bfbed210f004b1323ae72d412e3cc7d5113fc9eb87ed269df6d2e"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_columns_are_the_fields(table: Table) -> None:
    """Every field is declared, and has a column, in the same order."""
    assert [column.field for column in table.columns] == list(table.record.__struct_fields__)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_types_fit_the_fields(table: Table) -> None:
    """A field that may be null has a column that may be NULL, and only such a field has."""
    hints = get_type_hints(table.record)
    for column in table.columns:
        bare, nullable = _bare(hints[column.field])
        assert ("Nullable" in column.type) == nullable, column.name
        shape = FITS.get(get_origin(bare) or bare, r"Tuple\(.*\)|UUID")
        assert re.fullmatch(shape, re.sub(r"(LowCardinality\()?Nullable\((\w+)\)\)?", r"\2", column.type)), column.name


def _bare(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        (bare,) = set(get_args(hint)) - {type(None)}
        return bare, True
    return hint, False


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_field_is_described(table: Table) -> None:
    """Each has a text of its own, which documents, columns and contracts show."""
    assert all(field.description for field in fields_of(table.record).values())


def test_released_steps_never_change() -> None:
    """The checksum of every released step is the one that it was released with."""
    assert {step.version: step.checksum for step in MIGRATIONS if step.version in RELEASED} == RELEASED


def test_steps_are_numbered_from_one() -> None:
    """Without a gap, so that the newest version says which steps a database has."""
    assert [step.version for step in MIGRATIONS] == list(range(1, LATEST + 1))


def test_placeholders_are_the_known_ones() -> None:
    """Everything else is plain SQL; a parameterised view may have typed parameters."""
    known = r"on_cluster|deduplication_window|events_partition|engine:.*|[a-z_]+:[A-Z].*"
    for step in MIGRATIONS:
        assert all(re.fullmatch(known, name) for name in re.findall(r"\{([^}]*)\}", step.template))


def test_every_partition_length_is_of_device_time_alone() -> None:
    """Two rows of one event share a partition, whichever length is chosen: the key is a function of the device time."""
    keys = [
        re.findall(r"PARTITION BY (.*)", MIGRATIONS[0].statements(None, length)[0]) for length in get_args(Partition)
    ]
    assert keys == [["toYYYYMM(device_time)"], ["toMonday(device_time)"], ["toDate(device_time)"]]


def cluster_statements(versions: Container[int]) -> list[str]:
    """The statements of some steps, as a cluster called `main` gets them, after those before any step."""
    steps = [step for step in MIGRATIONS if step.version in versions]
    return [*bootstrap("main"), *(statement for step in steps for statement in step.statements("main"))]


def test_released_steps_in_a_cluster_are_the_recorded_ones() -> None:
    """What a cluster gets is word for word the text that was reviewed: no engine here could run it."""
    recorded = (Path(__file__).parent / "on_cluster.sql").read_text()
    assert "\n".join(f"{statement};" for statement in cluster_statements(RELEASED)) + "\n" == recorded


def test_in_a_cluster_everything_is_made_on_all_servers() -> None:
    """ON CLUSTER in every statement; every table replicated, with a window for tokens of its own."""
    for statement in [*bootstrap("main"), *(s for step in MIGRATIONS for s in step.statements("main"))]:
        assert "ON CLUSTER `main`" in statement
        assert not re.search(r"\{(?!shard\}|replica\}|[a-z_]+:[A-Z])", statement)
        if "CREATE TABLE" in statement:
            assert re.search(r"Replicated\w*MergeTree\('/clickhouse/tables/\{shard\}/telematics/", statement)
        if "_store" in statement and "CREATE TABLE" in statement:
            assert "SETTINGS replicated_deduplication_window = " in statement
