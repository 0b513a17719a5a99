"""ClickHouse's columns are the fields of the events on the topics: same names, fitting types, nothing missing."""

import re
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from schemas import clickhouse, clickhouse_ddl
from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.migration_steps import LATEST, MIGRATIONS, bootstrap
from schemas.tables import DEAD_LETTERS, EVENTS, TABLES, Table
from sinks.row_encoder import FIELD

STRUCTS = [(EVENTS, Event), (DEAD_LETTERS, DeadLetter)]

FITS: dict[Any, str] = {
    str: r"String|LowCardinality\(String\)|UUID|DateTime64\(6, 'UTC'\)",
    int: r"Int64|UInt64",
    float: "Float64",
    bool: "Bool",
    dict: "String",
    list: r"Array\(Tuple\(.*\)\)",
}

#: What was released: a step whose SQL changes would leave old databases behind. Add a step instead.
RELEASED = {1: "4c84532c1c1bfbed210f004b1323ae72d412e3cc7d5113fc9eb87ed269df6d2e"}


@pytest.mark.parametrize(("table", "struct"), STRUCTS)
def test_columns_are_the_fields(table: Table, struct: type[msgspec.Struct]) -> None:
    """Name for name, in the same order."""
    assert [FIELD.get(column.name, column.name) for column in table.columns] == list(struct.__struct_fields__)


@pytest.mark.parametrize(("table", "struct"), STRUCTS)
def test_types_fit_the_fields(table: Table, struct: type[msgspec.Struct]) -> None:
    """A field that may be null has a column that may be NULL, and only such a field has."""
    hints = get_type_hints(struct)
    for column in table.columns:
        bare, nullable = _bare(hints[FIELD.get(column.name, column.name)])
        assert ("Nullable" in column.type) == nullable, column.name
        shape = FITS.get(get_origin(bare) or bare, r"Tuple\(.*\)|UUID")
        assert re.fullmatch(shape, re.sub(r"(LowCardinality\()?Nullable\((\w+)\)\)?", r"\2", column.type)), column.name


def _bare(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        (bare,) = set(get_args(hint)) - {type(None)}
        return bare, True
    return hint, False


@pytest.mark.parametrize("table", TABLES)
def test_every_column_says_what_it_is(table: Table) -> None:
    """In the table and in the view that people read."""
    for statement in (clickhouse_ddl.create_store(table, None), clickhouse_ddl.create_view(table, None)):
        for column in (*table.columns, clickhouse.INSERTED_AT):
            assert re.search(rf"\n    {column.name} [^\n]* COMMENT '[^\n]+'", statement), column.name


def test_released_steps_never_change() -> None:
    """The checksum of every step is the one that it was released with."""
    assert {step.version: step.checksum for step in MIGRATIONS} == RELEASED


def test_steps_are_numbered_from_one() -> None:
    """Without a gap, so that the newest version says which steps a database has."""
    assert [step.version for step in MIGRATIONS] == list(range(1, LATEST + 1))


def test_in_a_cluster_everything_is_made_on_all_servers() -> None:
    """ON CLUSTER in every statement; every table replicated, with a window for tokens of its own."""
    for statement in [*bootstrap("main"), *(s for step in MIGRATIONS for s in step.statements("main"))]:
        assert "ON CLUSTER `main`" in statement
        if "CREATE TABLE" in statement:
            assert "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/telematics/" in statement
        if "_store" in statement and "CREATE TABLE" in statement:
            assert "SETTINGS replicated_deduplication_window = " in statement
