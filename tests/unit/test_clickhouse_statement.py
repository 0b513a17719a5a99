"""What a SQL text asks for."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.clickhouse.errors import ClickHouseError
from embedded.clickhouse.statement import Statement, kill_by_query_id, parse, quote, quote_name


@pytest.mark.parametrize(
    ("text", "head", "format_name", "tail"),
    [
        (b"SELECT 1", b"SELECT 1", None, b""),
        (b"SELECT 1;", b"SELECT 1", None, b""),
        (b" -- hello\nselect 1 format JSON ;\n", b" -- hello\nselect 1 ", "JSON", b" "),
        (b"SELECT 1 FORMAT JSON SETTINGS a = 1", b"SELECT 1 ", "JSON", b" SETTINGS a = 1"),
        (b"SELECT 1 SETTINGS a = 1 FORMAT `CSV`", b"SELECT 1 SETTINGS a = 1 ", "CSV", b""),
        (b"SELECT 1 /* FORMAT CSV */", b"SELECT 1 /* FORMAT CSV */", None, b""),
        (b"SELECT 'x FORMAT CSV'", b"SELECT 'x FORMAT CSV'", None, b""),
        (b"SELECT format FROM t", b"SELECT format FROM t", None, b""),
        (b"SELECT 1 AS format", b"SELECT 1 AS format", None, b""),
        (b"SELECT (SELECT 1 FORMAT CSV)", b"SELECT (SELECT 1 FORMAT CSV)", None, b""),
        (b"SELECT ';', `;`, \";\" # ;", b"SELECT ';', `;`, \";\" # ;", None, b""),
        (b"WITH 1 AS x SELECT x FORMAT TSV", b"WITH 1 AS x SELECT x ", "TSV", b""),
        (b"(SELECT 1) UNION ALL (SELECT 2)", b"(SELECT 1) UNION ALL (SELECT 2)", None, b""),
        (b"SELECT $doc$ ; FORMAT $doc$", b"SELECT $doc$ ; FORMAT $doc$", None, b""),
    ],
)
def test_a_query_is_split_at_its_format(text, head, format_name, tail):
    """Only the FORMAT clause that ends the query counts; strings, comments, names and subqueries do not."""
    statement = parse(text)
    assert (statement.kind, statement.head, statement.format, statement.tail) == ("rows", head, format_name, tail)


@pytest.mark.parametrize(
    ("text", "head", "format_name", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2", b"INSERT INTO t ", "CSV", b"1,2"),
        (b"INSERT INTO t (a, b) FORMAT CSV 1,2", b"INSERT INTO t (a, b) ", "CSV", b"1,2"),
        (b"insert into db.t(a)\n format Native\r\n\x01\x02", b"insert into db.t(a)\n ", "Native", b"\x01\x02"),
        (b"INSERT INTO t FORMAT Native\n\n\x20", b"INSERT INTO t ", "Native", b"\n\x20"),
        (b"INSERT INTO t VALUES (1, 'a')", b"INSERT INTO t ", "Values", b" (1, 'a')"),
        (b"INSERT INTO `values` VALUES (1)", b"INSERT INTO `values` ", "Values", b" (1)"),
        (b"INSERT INTO values VALUES (1)", b"INSERT INTO values ", "Values", b" (1)"),
        (b"INSERT INTO db.format FORMAT TSV\n1", b"INSERT INTO db.format ", "TSV", b"1"),
        (b"INSERT INTO {t:Identifier} FORMAT TSV\n1", b"INSERT INTO {t:Identifier} ", "TSV", b"1"),
        (
            b"INSERT INTO t SETTINGS a = 1, b = 'x;y' FORMAT JSONEachRow\n{}",
            b"INSERT INTO t SETTINGS a = 1, b = 'x;y' ",
            "JSONEachRow",
            b"{}",
        ),
        (
            b"INSERT INTO t FORMAT CSV SETTINGS a = 1, b = 'x'\n1",
            b"INSERT INTO t  SETTINGS a = 1, b = 'x'",
            "CSV",
            b"1",
        ),
        (
            b"INSERT INTO t SELECT a FROM input('a Int8') FORMAT CSV\n1",
            b"INSERT INTO t SELECT a FROM input('a Int8') ",
            "CSV",
            b"1",
        ),
        (b"WITH 1 AS x INSERT INTO t FORMAT CSV\n1;", b"WITH 1 AS x INSERT INTO t ", "CSV", b"1;"),
        (b"INSERT INTO t FORMAT TSV ;1", b"INSERT INTO t ", "TSV", b";1"),
        (b"INSERT INTO t FORMAT CSV\nSELECT;", b"INSERT INTO t ", "CSV", b"SELECT;"),
        (b"INSERT INTO FUNCTION null('a Int8') FORMAT CSV\n1", b"INSERT INTO FUNCTION null('a Int8') ", "CSV", b"1"),
        (b"INSERT INTO t FORMAT CSV", b"INSERT INTO t ", "CSV", b""),
    ],
)
def test_an_insert_is_split_at_its_data(text, head, format_name, data):
    """Head and data are split as ClickHouse does, whatever bytes the data has."""
    statement = parse(text)
    assert (statement.kind, statement.head, statement.format, statement.data) == ("insert", head, format_name, data)


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t (a) WITH 1 AS x SELECT x",
        b"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        b"CREATE TABLE t (a Int8) ENGINE = Memory",
        b"SHOW TABLES",
        b"SET a = 1",
    ],
)
def test_everything_else_is_left_to_the_engine(text):
    """Statements that neither give many rows nor bring data are passed on as they came."""
    assert parse(text).kind == "other"
    assert parse(text).text == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", 62),
        (b" -- nothing\n", 62),
        (b"SELECT 1; SELECT 2", 62),
        (b"SELECT 1 INTO OUTFILE 'x'", 358),
        (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", 78),
        (b"INSERT INTO t FORMAT CSV;\n1", 62),
    ],
)
def test_what_a_server_refuses_is_refused_with_its_code(text, code):
    """Empty and multiple statements, and files of the client's side, never reach the engine."""
    with pytest.raises(ClickHouseError) as caught:
        parse(text)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        (b"SELECT 1", True),
        (b"SHOW TABLES", True),
        (b"EXPLAIN SELECT 1", True),
        (b"INSERT INTO t VALUES (1)", False),
        (b"WITH 1 AS x INSERT INTO t SELECT x", False),
        (b"DROP TABLE t", False),
        (b"KILL QUERY WHERE 1", False),
    ],
)
def test_get_allows_reading_only(text, reads):
    """A GET may read; the keyword decides before the engine does."""
    assert parse(text).reads_only is reads


def test_kill_query_finds_queries_by_the_id_that_the_client_gave():
    """The engine's own ids are replaced by the column that holds the client's, in code and not in strings."""
    text = b"KILL QUERY WHERE query_id = 'query_id' SYNC"
    assert kill_by_query_id(parse(text), b"X") == b"KILL QUERY WHERE X = 'query_id' SYNC"


@given(st.text())
def test_quoting_cannot_be_left(value):
    """Whatever the value, a literal or a name is one token."""
    assert parse(b"SELECT " + quote(value).encode("utf-8", "surrogatepass") + b" FORMAT CSV").format == "CSV"
    assert parse(b"SELECT " + quote_name(value).encode("utf-8", "surrogatepass") + b" FORMAT CSV").format == "CSV"


@given(
    st.lists(
        st.sampled_from(
            [b"INSERT ", b"INTO ", b"t ", b"FORMAT ", b"VALUES", b"'", b"`", b"/*", b"$$", b";", b"(", b"\\"]
        )
        | st.binary(max_size=4)
    ).map(b"".join)
)
def test_any_bytes_have_an_outcome(text):
    """No text makes the parser fail in any other way than with an error of ClickHouse's."""
    with suppress(ClickHouseError):
        assert isinstance(parse(text), Statement)


@pytest.mark.parametrize("unit", [b"/*", b"'", b"$a", b"$$", b"`", b'"', b"(", b"--", b"'\\"])
def test_a_hostile_text_is_read_once(unit):
    """A quarter of a megabyte of things opened and never closed is no work for minutes."""
    began = time.process_time()
    parse(b"SELECT " + unit * (262_144 // len(unit)))
    assert time.process_time() - began < 5
