"""What a server's HTTP interface does beyond single answers: ids, live results, types of clients, data of its own."""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.external import ExternalData

from tests.integration.clickhouse_fixture import embedded_clickhouse
from tests.integration.test_clickhouse_http import DEADLINE_S, get, post, table, until, value

__all__ = ["embedded_clickhouse", "table"]

RUNNING = "SELECT count() FROM system.processes WHERE query_id = '{}'"
ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1e12)"


# --- ids -------------------------------------------------------------------------------------------------------------


def test_a_comment_in_the_text_does_not_hide_a_query(embedded_clickhouse):
    """With a log_comment of its own in SQL or URL, a query is still killed by its id and by its client's end."""
    server = embedded_clickhouse
    query = f"{ENDLESS} SETTINGS log_comment = 'mine'"
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(post, server, query, query_id="commented", log_comment="other")
        until(lambda: value(server, RUNNING.format("commented")) == "1", "the query's start")
        assert post(server, "KILL QUERY WHERE query_id = 'commented'").status == 200
        assert slow.result(DEADLINE_S).headers["X-ClickHouse-Exception-Code"] == "394"
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    client.request("POST", "/?" + urlencode({"query_id": "left"}), query)
    until(lambda: value(server, RUNNING.format("left")) == "1", "the query's start")
    client.close()
    until(lambda: value(server, RUNNING.format("left")) == "0", "the query's end")


def test_a_log_comment_is_the_clients(embedded_clickhouse):
    """The setting holds what the client set, as with a server."""
    assert value(embedded_clickhouse, "SELECT getSetting('log_comment')", log_comment="hello") == "hello"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT queryID()",
        "SELECT initialQueryID() AS x FORMAT TSV",
        "SELECT upper(queryID())",
        "SELECT query_id FROM system.processes WHERE query_id = queryID()",
        "SELECT p.initial_query_id FROM system.processes AS p WHERE p.query_id = 'MY-ID'",
    ],
)
def test_a_query_knows_the_requests_id(embedded_clickhouse, query):
    """The id of the answer's header is that of the functions and of system.processes."""
    answer = post(embedded_clickhouse, query, query_id="MY-ID")
    assert (answer.text, answer.headers["X-ClickHouse-Query-Id"]) == ("MY-ID\n", "MY-ID")


def test_the_id_keeps_its_columns_name(embedded_clickhouse):
    """A driver that reads columns by name finds this one."""
    assert post(embedded_clickhouse, "SELECT queryID() FORMAT TSVWithNames").text.startswith("queryID()\n")


def test_an_unknown_role_is_refused(embedded_clickhouse):
    """A role that does not exist is never taken silently: 511, as a server says."""
    answer = post(embedded_clickhouse, "SELECT 1", role="analyst")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "511")


# --- results ---------------------------------------------------------------------------------------------------------


def test_rows_go_out_before_the_query_ends(embedded_clickhouse):
    """Rows that the engine has handed over do not wait for the rest; a later error is framed in the body, with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", embedded_clickhouse.port, timeout=DEADLINE_S)
    query = (
        "SELECT number, sleepEachRow(0.5), throwIf(number = 5) FROM numbers(6) "
        "SETTINGS max_block_size = 1 FORMAT JSONEachRowWithProgress"
    )
    connection.request("POST", "/?query_id=goes-out", query)
    response = connection.getresponse()
    assert response.status == 200
    assert response.read1()
    running = "SELECT count() FROM system.processes WHERE query_id = 'goes-out'"
    assert value(embedded_clickhouse, running) == "1"
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    connection.close()
    assert b"\r\n__exception__\r\n" + response.headers["X-ClickHouse-Exception-Tag"].encode() in caught.value.partial


@pytest.mark.parametrize("field", ["wait_end_of_query", "http_wait_end_of_query"])
def test_a_result_may_wait_for_its_end(embedded_clickhouse, field):
    """With wait_end_of_query an error after many rows has its status."""
    query = "SELECT number, throwIf(number = 2000000) FROM numbers(3000000) SETTINGS max_block_size = 10000"
    assert post(embedded_clickhouse, query, **{field: "1"}).status == 500


def test_a_result_is_held_back_by_the_asked_size(embedded_clickhouse):
    """http_response_buffer_size is how much of a result waits for its end: an error within it has its status."""
    query = "SELECT number, throwIf(number = 1000000) FROM numbers(3000000) SETTINGS max_block_size = 10000"
    assert post(embedded_clickhouse, query, http_response_buffer_size="100000000").status == 500


def test_progress_comes_in_headers(embedded_clickhouse):
    """`send_progress_in_http_headers` gives the numbers of a running query, one header for each interval."""
    answer = post(
        embedded_clickhouse,
        "SELECT sum(sleepEachRow(0.1)) FROM numbers(10) SETTINGS max_block_size = 1",
        send_progress_in_http_headers="1",
        http_headers_progress_interval_ms="100",
    )
    shown = [json.loads(text) for text in answer.headers.get_all("X-ClickHouse-Progress") or []]
    read = [int(progress["read_rows"]) for progress in shown]
    assert len(read) >= 3
    assert read == sorted(read)
    assert max(read) > 0
    assert "X-ClickHouse-Progress" not in post(embedded_clickhouse, "SELECT 1").headers


def test_a_statement_without_a_result_has_no_format(embedded_clickhouse, table):
    """A driver sees by the header whether there is a result: clickhouse-connect's command() gives a summary then."""
    for query in (f"INSERT INTO {table} VALUES (1, '')", "SET max_threads = 1", f"TRUNCATE TABLE {table}"):
        assert "X-ClickHouse-Format" not in post(embedded_clickhouse, query).headers
    with clickhouse_connect.get_client(host="127.0.0.1", port=embedded_clickhouse.port) as client:
        assert client.command(f"TRUNCATE TABLE {table}") != ""


def test_readers_that_do_not_read_block_no_query(embedded_clickhouse):
    """With more unread results than places, another query is answered."""
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", embedded_clickhouse.port)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            query = b"SELECT number, repeat('x', 1000) FROM numbers(1000000)"
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(query), query))
        for _ in range(5):
            assert value(embedded_clickhouse, "SELECT 1") == "1"


@pytest.mark.parametrize("quoted", ["0", "1"])
def test_64_bit_integers_are_quoted_as_asked(embedded_clickhouse, quoted):
    """`output_format_json_quote_64bit_integers` decides, in the URL and in the text; a server's default is plain."""
    name = "output_format_json_quote_64bit_integers"
    number = {"0": 2**64 - 1, "1": str(2**64 - 1)}[quoted]
    query = "SELECT 18446744073709551615 AS x"
    for answer in (
        get(embedded_clickhouse, f"{query} FORMAT JSONEachRow", **{name: quoted}),
        post(embedded_clickhouse, f"{query} SETTINGS {name} = {quoted} FORMAT JSONEachRow"),
        post(embedded_clickhouse, f"{query} FORMAT JSONEachRow SETTINGS {name} = {quoted}"),
    ):
        assert json.loads(answer.body) == {"x": number}
    assert json.loads(post(embedded_clickhouse, f"{query} FORMAT JSONEachRow").body) == {"x": 2**64 - 1}


# --- Native of a client's revision -----------------------------------------------------------------------------------

ZONED = "SELECT toDateTime(0, 'Asia/Tokyo') AS t, [toDateTime(0, 'UTC')] AS ts, toDateTime(0) AS u"
INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


@pytest.mark.parametrize(
    ("revision", "info", "zone"),
    [("0", False, False), ("54336", True, False), ("54405", True, True), ("54460", True, True)],
)
def test_native_follows_the_clients_revision(embedded_clickhouse, revision, info, zone):
    """Block info from 1 on, DateTime's time zone from 54337 on, as a server writes them."""
    body = post(embedded_clickhouse, ZONED, default_format="Native", client_protocol_version=revision).body
    assert body.startswith(INFO) is info
    assert (b"\x16DateTime('Asia/Tokyo')" in body) is zone


def test_clickhouse_connect_gets_time_zones(embedded_clickhouse):
    """A DateTime comes in its column's zone."""
    with clickhouse_connect.get_client(host="127.0.0.1", port=embedded_clickhouse.port) as client:
        row = client.query("SELECT toDateTime(0, 'Asia/Tokyo')").first_row
        assert row is not None
        assert (row[0].hour, str(row[0].tzinfo)) == (9, "Asia/Tokyo")


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "body", "stored"),
    [
        ("INSERT INTO {} (b) FORMAT TSV\na;", None, "a;"),
        ("INSERT INTO {} (b) FORMAT TSV ;a;", None, ";a;"),
        ("INSERT INTO {} (b) FORMAT TSV\n;", None, ";"),
        ("WITH 1 AS x INSERT INTO {} (b) FORMAT TSV\na;", None, "a;"),
        ("INSERT INTO {} (b) FORMAT RawBLOB", "a;\n", "a;\n"),
        ("INSERT INTO {} (b) FORMAT RawBLOB a;\n", None, "a;\n"),
    ],
)
def test_data_is_stored_as_it_came(embedded_clickhouse, table, statement, body, stored):
    """A semicolon or a line end belongs to the data, in the text or beside it."""
    sql = statement.format(table)
    for answer in [post(embedded_clickhouse, body or b"", query=sql)] + (
        [] if body else [post(embedded_clickhouse, sql)]
    ):
        assert answer.status == 200, answer.text
    assert value(embedded_clickhouse, f"SELECT DISTINCT hex(b) FROM {table}") == stored.encode().hex().upper()


@pytest.mark.parametrize("beside", [True, False])
def test_data_goes_through_a_select(embedded_clickhouse, table, beside):
    """`INSERT … SELECT … FROM input(…)` reads the request's data."""
    sql = (
        f"INSERT INTO {table} SELECT n * 10, upper(s) FROM input('n UInt64, s Enum8(''a'' = 1, ''b'' = 2)') FORMAT CSV"
    )
    sql = sql.replace("upper(s)", "upper(toString(s))")
    rows = "1,a\n2,b\n"
    answer = post(embedded_clickhouse, rows, query=sql) if beside else post(embedded_clickhouse, f"{sql}\n{rows}")
    assert answer.status == 200, answer.text
    assert answer.summary["written_rows"] == 2
    assert value(embedded_clickhouse, f"SELECT groupArray((a, b)) FROM (SELECT * FROM {table} ORDER BY a)") == (
        "[(10,'A'),(20,'B')]"
    )


def test_external_data_goes_with_its_query(embedded_clickhouse):
    """It is read under the request's settings, and a session does not keep it."""
    with clickhouse_connect.get_client(host="127.0.0.1", port=embedded_clickhouse.port, session_id="ext") as client:
        for name in ("Ann", "Bob"):
            data = ExternalData(
                file_name="people", data=f"1;{name}\n".encode(), fmt="CSV", structure="id UInt8, n String"
            )
            result = client.query("SELECT n FROM people", external_data=data, settings={"format_csv_delimiter": ";"})
            assert result.result_rows == [(name,)]
        with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="UNKNOWN_TABLE"):
            client.query("SELECT n FROM people")


@pytest.mark.parametrize("name", ["id$x", "13_", "x"])
def test_parameters_have_any_name_that_a_server_takes(embedded_clickhouse, name):
    """Digits and dollars are names of parameters too."""
    answer = post(embedded_clickhouse, f"SELECT {{{name}:String}}", **{f"param_{name}": "v"})
    assert answer.text == "v\n"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT arrayElement(['a'::Variant(String, UInt8), 1::UInt8::Variant(String, UInt8)], number + 1) AS x",
        "SELECT [number::Dynamic, 'b'::Dynamic, [1]::Dynamic] AS x",
        'SELECT \'{"a":1,"b":{"c":[{"d":"x"}]}}\'::JSON(a UInt8, max_dynamic_paths=1) AS x',
    ],
)
def test_native_has_semi_structured_types(embedded_clickhouse, query):
    """Variant, Dynamic and JSON reach clients of the native protocol, with the columns behind them."""
    query = f"{query}, 77::UInt8 AS z FROM numbers(2)"
    plain = post(embedded_clickhouse, query, default_format="Native").body
    answer = post(embedded_clickhouse, query, default_format="Native", client_protocol_version="54460")
    assert answer.status == 200, answer.text
    assert answer.body.endswith(b"\x01z\x05UInt8\x00MM")
    assert len(answer.body) == len(plain) + len(INFO) + 2
