"""The HTTP interface with real clients: clickhouse-connect, requests like curl's, clickhouse-go's encodings."""

import asyncio
import gzip
import http.client
import json
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import clickhouse_connect
import lz4.frame
import pytest
import zstandard
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from embedded.clickhouse.compression import BlockCompressor, BlockDecompressor
from tests.integration.clickhouse_fixture import embedded_clickhouse
from tests.stack import ClickHouse

__all__ = ["embedded_clickhouse"]

DEADLINE_S = 60


class Answer:
    """A response: status, headers and body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def summary(self) -> dict[str, int]:
        return {name: int(value) for name, value in json.loads(self.headers["X-ClickHouse-Summary"]).items()}


def call(server: ClickHouse, method: str, path: str, body=b"", headers=None, **fields) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        target = f"{path}?{urlencode(fields)}" if fields else path
        connection.request(method, target, body, headers or {}, encode_chunked=not isinstance(body, bytes | str))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def get(server: ClickHouse, query: str, **fields) -> Answer:
    return call(server, "GET", "/", query=query, **fields)


def post(server: ClickHouse, body, headers=None, **fields) -> Answer:
    return call(server, "POST", "/", body, headers, **fields)


def value(server: ClickHouse, query: str, **fields) -> str:
    answer = post(server, query, **fields)
    assert answer.status == 200, answer.text
    return answer.text.rstrip("\n")


def until(condition, what: str, deadline_s: float = DEADLINE_S):
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {deadline_s} s"
        time.sleep(0.02)
    return found


@pytest.fixture
def table(embedded_clickhouse, request):
    """A table of its own for one test: `a UInt64, b String`, with deduplication."""
    name = "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    value(embedded_clickhouse, f"DROP TABLE IF EXISTS {name}")
    value(
        embedded_clickhouse,
        f"CREATE TABLE {name} (a UInt64, b String) ENGINE = MergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 100",
    )
    return name


# --- health, methods, paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/ping", "/replicas_status"])
def test_health_checks_say_ok(embedded_clickhouse, path):
    """Load balancers and drivers get ClickHouse's answer."""
    answer = call(embedded_clickhouse, "GET", path)
    assert (answer.status, answer.text) == (200, "Ok.\n")


def test_another_path_is_not_there(embedded_clickhouse):
    """A wrong path is a 404 that names the right ones."""
    answer = call(embedded_clickhouse, "GET", "/nope")
    assert answer.status == 404
    assert "/ping" in answer.text


def test_get_reads_and_does_not_write(embedded_clickhouse, table):
    """GET implies readonly: a server answers 164 and status 500."""
    assert get(embedded_clickhouse, "SELECT 1 + 1").text == "2\n"
    for query in (f"INSERT INTO {table} VALUES (1, '')", f"DROP TABLE {table}"):
        answer = get(embedded_clickhouse, query)
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "164")
        assert "GET implies readonly" in answer.text
    assert get(embedded_clickhouse, "SELECT 1 SETTINGS max_threads = 1").text == "1\n"


def test_web_pages_are_not_answered(embedded_clickhouse):
    """A page in the browser of a person who runs this cannot send statements to it: the engine can write files."""
    answer = post(embedded_clickhouse, "SELECT 1", {"Origin": "http://example.com"})
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497")


def test_head_has_no_body(embedded_clickhouse):
    """HEAD answers like GET, without a body."""
    answer = call(embedded_clickhouse, "HEAD", "/", query="SELECT 1")
    assert (answer.status, answer.body) == (200, b"")


def test_an_empty_post_is_a_syntax_error(embedded_clickhouse):
    """Nothing to do is the client's mistake."""
    answer = post(embedded_clickhouse, b"")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "62")


# --- queries ---------------------------------------------------------------------------------------------------------


def test_a_query_in_url_body_or_both(embedded_clickhouse):
    """The URL's query and the body's text are one statement."""
    assert call(embedded_clickhouse, "POST", "/", query="SELECT 1").text == "1\n"
    assert post(embedded_clickhouse, "SELECT 2").text == "2\n"
    assert post(embedded_clickhouse, "+ 3", query="SELECT 1").text == "4\n"


@pytest.mark.parametrize("format_name", ["JSON", "CSVWithNames", "Parquet", "Arrow", "XML", "Pretty", "Native"])
def test_every_format_is_whole(embedded_clickhouse, format_name):
    """A large result is the same streamed and in one piece, with one header and one footer."""
    query = "SELECT number, toString(number) AS s FROM numbers(100000) ORDER BY number"
    settings = {"output_format_write_statistics": "0", "max_threads": "1"}
    streamed = post(embedded_clickhouse, f"{query} FORMAT {format_name}", **settings)
    whole = post(embedded_clickhouse, query, default_format=format_name, wait_end_of_query="1", **settings)
    assert streamed.status == whole.status == 200
    assert streamed.body == whole.body
    assert streamed.headers["X-ClickHouse-Format"] == format_name
    if format_name == "JSON":
        document = json.loads(streamed.body)
        assert document["rows"] == len(document["data"]) == 100_000


def test_the_format_comes_from_text_url_or_header(embedded_clickhouse):
    """The text's FORMAT wins over the URL's, the URL's over the header's, and TabSeparated is the default."""
    header = {"X-ClickHouse-Format": "CSV"}
    assert post(embedded_clickhouse, "SELECT 1, 'a'").text == "1\ta\n"
    assert post(embedded_clickhouse, "SELECT 1, 'a'", header).text == '1,"a"\n'
    answer = post(embedded_clickhouse, "SELECT 1, 'a'", header, default_format="JSONCompactEachRow")
    assert answer.text == '[1, "a"]\n'
    answer = post(embedded_clickhouse, "SELECT 1 AS x, 'a' AS y FORMAT TSVWithNames", header, default_format="JSON")
    assert answer.text == "x\ty\n1\ta\n"
    assert answer.headers["Content-Type"] == "text/tab-separated-values; charset=UTF-8"


@pytest.mark.parametrize("query", ["SHOW DATABASES", "DESCRIBE system.one", "EXPLAIN SELECT 1", "EXISTS system.one"])
def test_other_statements_have_results_too(embedded_clickhouse, query):
    """What is not a SELECT has its result in the asked format as well."""
    answer = post(embedded_clickhouse, query, default_format="JSON")
    assert json.loads(answer.body)["data"]


def test_parameters_are_typed_and_cannot_be_left(embedded_clickhouse):
    """`param_x` fills `{x:Type}`, escaped as in TabSeparated."""
    query = "SELECT {x:String}, {y:Array(UInt8)}, {z:Nullable(String)}, {t:Identifier} FROM system.one"
    answer = post(embedded_clickhouse, query, param_x="it's \\t; --", param_y="[1,2]", param_z="\\N", param_t="dummy")
    assert answer.text == "it\\'s \\t; --\t[1,2]\t\\N\t0\n"
    answer = post(embedded_clickhouse, "SELECT {missing:String}")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "456"


def test_the_database_is_chosen_by_url_or_header(embedded_clickhouse):
    """Names without a database are looked for in the request's."""
    assert value(embedded_clickhouse, "SELECT currentDatabase()", database="system") == "system"
    answer = post(embedded_clickhouse, "SELECT currentDatabase()", {"X-ClickHouse-Database": "system"})
    assert answer.text == "system\n"
    answer = post(embedded_clickhouse, "SELECT 1", database="nope")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "81")


def test_settings_hold_for_their_request_only(embedded_clickhouse):
    """What one request sets is never seen by another, be it in the URL or with SET."""
    query = "SELECT getSetting('max_block_size')"
    default = value(embedded_clickhouse, query)
    assert value(embedded_clickhouse, query, max_block_size="12345") == "12345"
    assert value(embedded_clickhouse, "SET max_block_size = 23456") == ""
    answers = [value(embedded_clickhouse, query) for _ in range(40)]
    assert set(answers) == {default}
    answer = post(embedded_clickhouse, query, no_such_setting="1")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "115")


def test_a_quote_in_a_setting_stays_in_it(embedded_clickhouse):
    """A setting's value cannot become SQL."""
    text = "x', readonly = '1\\"
    query = "SELECT getSetting('insert_deduplication_token') FORMAT TSVRaw"
    assert value(embedded_clickhouse, query, insert_deduplication_token=text) == text


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELECT * FROM nope", "60", 404),
        ("SELECT nope", "47", 404),
        ("SELEC 1", "62", 400),
        ("SELECT 1 +", "62", 400),
        ("SELECT 1; SELECT 2", "62", 400),
        ("SELECT throwIf(1)", "395", 500),
        ("SELECT toUInt8('x')", "6", 400),
        ("SELECT 1 FORMAT Nope", "73", 404),
        ("SELECT sleep(3) SETTINGS max_execution_time = 0.2", "159", 408),
        ("SELECT * FROM numbers(10) INTO OUTFILE 'x.csv'", "358", 500),
        ("INSERT INTO nope VALUES (1)", "60", 404),
        ("DROP TABLE nope", "60", 404),
    ],
)
def test_errors_are_clickhouses_own(embedded_clickhouse, query, code, status):
    """Status, header and body carry the code, as a server's do."""
    answer = post(embedded_clickhouse, query)
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code), answer.text
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "OUTFILE '/dev" not in answer.text
    assert answer.text.rstrip().endswith("(official build))")


def test_a_query_too_long_is_refused(embedded_clickhouse):
    """A text beyond max_query_size is a syntax error, and the limit is a setting."""
    query = "SELECT " + "1+" * 200_000 + "1"
    assert post(embedded_clickhouse, query).headers["X-ClickHouse-Exception-Code"] == "62"
    long = "SELECT '" + "x" * 300_000 + "'"
    assert post(embedded_clickhouse, long, max_query_size="1000000").status == 200


def test_an_error_after_the_first_rows_is_seen(embedded_clickhouse):
    """The headers name a tag, the error stands framed by it behind the rows, and the body has no proper end."""
    connection = http.client.HTTPConnection("127.0.0.1", embedded_clickhouse.port, timeout=DEADLINE_S)
    query = "SELECT number, throwIf(number = 2000000) FROM numbers(3000000) SETTINGS max_block_size = 10000"
    connection.request("POST", "/", query)
    response = connection.getresponse()
    assert response.status == 200
    tag = response.headers["X-ClickHouse-Exception-Tag"]
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    connection.close()
    tail = caught.value.partial[-2000:].decode()
    assert f"\r\n__exception__\r\n{tag}\r\nCode: 395. DB::Exception: " in tail
    message = tail.split(f"__exception__\r\n{tag}\r\n")[1]
    text, _, rest = message.rpartition("\n")[0].rpartition("\n")[0].rpartition("\n")
    assert rest == f"{len(text) + 1} {tag}\r"


# --- ids, summaries, headers -----------------------------------------------------------------------------------------


def test_query_ids_go_in_and_out(embedded_clickhouse):
    """A given id comes back, and another one is made when none is given; the same one twice at once is refused."""
    assert post(embedded_clickhouse, "SELECT 1", query_id="mine").headers["X-ClickHouse-Query-Id"] == "mine"
    first, second = (post(embedded_clickhouse, "SELECT 1").headers["X-ClickHouse-Query-Id"] for _ in range(2))
    assert first != second
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: post(embedded_clickhouse, "SELECT sleep(3)", query_id="twice"), range(2)))
    codes = {answer.headers.get("X-ClickHouse-Exception-Code") for answer in answers}
    assert codes == {None, "216"}


def test_a_running_query_is_killed_by_its_id(embedded_clickhouse):
    """KILL QUERY finds the id that the client gave."""
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(
            post, embedded_clickhouse, "SELECT sum(sipHash64(number)) FROM numbers(1e11)", query_id="slow"
        )
        running = "SELECT count() FROM system.processes WHERE query_id = 'slow'"
        until(lambda: value(embedded_clickhouse, running) == "1", "the query")
        assert post(embedded_clickhouse, "KILL QUERY WHERE query_id = 'slow'").status == 200
        assert slow.result(DEADLINE_S).headers["X-ClickHouse-Exception-Code"] == "394"


def test_summaries_have_real_numbers(embedded_clickhouse, table):
    """Rows read and written are what was read and written."""
    written = post(embedded_clickhouse, "1,a\n2,b\n3,c\n", query=f"INSERT INTO {table} FORMAT CSV").summary
    assert (written["written_rows"], written["read_rows"]) == (3, 3)
    assert written["written_bytes"] > 0
    read = post(embedded_clickhouse, f"SELECT max(b) FROM {table}").summary
    assert (read["read_rows"], read["result_rows"]) == (3, 1)
    assert read["elapsed_ns"] > 0
    copied = post(embedded_clickhouse, f"INSERT INTO {table} SELECT number, '' FROM numbers(10)").summary
    assert copied["written_rows"] == 10


def test_headers_name_server_zone_and_format(embedded_clickhouse):
    """Drivers read the time zone and the format from the headers."""
    headers = post(embedded_clickhouse, "SELECT 1 FORMAT CSV").headers
    assert headers["X-ClickHouse-Timezone"] == value(embedded_clickhouse, "SELECT timezone()")
    assert headers["X-ClickHouse-Server-Display-Name"] == value(embedded_clickhouse, "SELECT hostName()")
    assert headers["X-ClickHouse-Format"] == "CSV"


# --- inserts ---------------------------------------------------------------------------------------------------------


def test_inserts_in_every_way_of_giving_data(embedded_clickhouse, table):
    """Inline values, data behind the query in the body, data beside a query in the URL, and from a SELECT."""
    server = embedded_clickhouse
    for body, fields in [
        (f"INSERT INTO {table} VALUES (1, 'a'), (1 + 1, upper('b'));", {}),
        (f"INSERT INTO {table} FORMAT CSV\n3,c\n", {}),
        ("4,d\n", {"query": f"INSERT INTO {table} FORMAT CSV"}),
        ("(5, 'e')", {"query": f"INSERT INTO {table} VALUES"}),
        ("FORMAT CSV\n6,f\n", {"query": f"INSERT INTO {table}"}),
        ("(7, 'g')", {"query": f"INSERT INTO {table} (a, b)"}),
        ("8,h\n", {"query": f"INSERT INTO {table} (a, b)", "default_format": "CSV"}),
        (f'INSERT INTO {table} (a) SETTINGS max_threads = 1 FORMAT JSONEachRow\n{{"a": 9}}', {}),
        (f"INSERT INTO {table} FORMAT CSV SETTINGS format_csv_delimiter = ';'\n10;x\n", {}),
        ("", {"query": f"INSERT INTO {table} FORMAT CSV"}),
        ("14,r\n", {"query": f"INSERT INTO {table} (a, b) -- a comment", "default_format": "CSV"}),
        (f"INSERT INTO {table} SELECT 11, 'from select'", {}),
        ("12,p\n", {"query": "INSERT INTO {t:Identifier} FORMAT CSV", "param_t": table}),
        ("13;q\n", {"query": f"INSERT INTO {table} FORMAT CSV", "format_csv_delimiter": ";"}),
    ]:
        answer = post(server, body, **fields)
        assert answer.status == 200, (body, fields, answer.text)
    assert value(server, f"SELECT groupArray(a) FROM (SELECT a FROM {table} ORDER BY a)") == str(
        list(range(1, 15))
    ).replace(" ", "")


@pytest.mark.parametrize(
    "format_name", ["Native", "RowBinary", "JSONEachRow", "CSV", "Parquet", "ArrowStream", "Values"]
)
def test_inserts_in_any_format(embedded_clickhouse, table, format_name):
    """What ClickHouse writes in a format, it reads in that format."""
    rows = post(
        embedded_clickhouse, f"SELECT number AS a, toString(a) AS b FROM numbers(1000) FORMAT {format_name}"
    ).body
    answer = post(embedded_clickhouse, rows, query=f"INSERT INTO {table} FORMAT {format_name}")
    assert answer.status == 200, answer.text
    assert value(embedded_clickhouse, f"SELECT count(), sum(a), uniqExact(b) FROM {table}") == "1000\t499500\t1000"


PACKED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", PACKED)
def test_both_ways_packed(embedded_clickhouse, table, encoding):
    """Bodies are unpacked by Content-Encoding, results packed by Accept-Encoding, query text included."""
    body = b"".join(b"%d,abc\n" % n for n in range(1000))
    packed = PACKED[encoding](f"INSERT INTO {table} FORMAT CSV\n".encode() + body)
    answer = post(embedded_clickhouse, packed, {"Content-Encoding": encoding})
    assert answer.status == 200, answer.text
    query, headers = f"SELECT * FROM {table} ORDER BY a FORMAT CSV", {"Accept-Encoding": encoding}
    answer = post(embedded_clickhouse, query, headers, enable_http_compression="1")
    assert answer.headers["Content-Encoding"] == encoding
    unpack = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "lz4": lz4.frame.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    }[encoding]
    assert unpack(answer.body) == body.replace(b"abc", b'"abc"')
    plain = post(embedded_clickhouse, query, headers, enable_http_compression="0")
    assert "Content-Encoding" not in plain.headers


def test_broken_packing_is_the_clients_mistake(embedded_clickhouse, table):
    """A truncated body stores nothing; an unknown encoding is named."""
    packed = gzip.compress(b"1,a\n" * 1000)[:-5]
    answer = post(embedded_clickhouse, packed, {"Content-Encoding": "gzip"}, query=f"INSERT INTO {table} FORMAT CSV")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "271"
    answer = post(embedded_clickhouse, b"x", {"Content-Encoding": "br"}, query=f"INSERT INTO {table} FORMAT CSV")
    assert answer.status == 501
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "0"


@pytest.mark.parametrize("body", [b"1,a\nx,b\n", b"1,a\n2\n", b"1,a\n,,,\n"])
def test_a_malformed_body_stores_nothing(embedded_clickhouse, table, body):
    """One bad row, and none of its neighbours is stored."""
    answer = post(embedded_clickhouse, body, query=f"INSERT INTO {table} FORMAT CSV")
    assert answer.status == 400
    assert answer.headers["X-ClickHouse-Exception-Code"] in {"27", "117"}
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "0"


@pytest.mark.parametrize("body", [b"\x01\x02\x01a\x05Int64" + bytes([3] + [0] * 7 + [154, 2] + [0] * 6), b"3\n666\n"])
def test_rows_that_cannot_be_stored_are_an_error(embedded_clickhouse, body):
    """What can be read but not stored is never acknowledged: a constraint, or a view that throws."""
    server = embedded_clickhouse
    format_name = "TSV" if body.endswith(b"\n") else "Native"
    for statement in (
        "DROP TABLE IF EXISTS guarded_view",
        "DROP TABLE IF EXISTS guarded",
        "CREATE TABLE guarded (a Int64, CONSTRAINT low CHECK a != 666) ENGINE = MergeTree ORDER BY a",
    ):
        assert post(server, statement).status == 200
    answer = post(server, body, query=f"INSERT INTO guarded FORMAT {format_name}")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "469"), answer.text
    for statement in (
        "ALTER TABLE guarded DROP CONSTRAINT low",
        "CREATE MATERIALIZED VIEW guarded_view ENGINE = Memory AS SELECT throwIf(a = 666) FROM guarded",
    ):
        assert post(server, statement).status == 200
    answer = post(server, body, query=f"INSERT INTO guarded FORMAT {format_name}")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "395"), answer.text
    assert post(server, "DROP TABLE guarded_view").status == 200
    assert post(server, body, query=f"INSERT INTO guarded FORMAT {format_name}").status == 200


def test_a_body_that_breaks_off_stores_nothing(embedded_clickhouse, table):
    """A client that goes away in the middle of its body has inserted nothing, and the table stays usable."""
    with socket.create_connection(("127.0.0.1", embedded_clickhouse.port)) as client:
        query = urlencode({"query": f"INSERT INTO {table} FORMAT CSV", "query_id": "broken"})
        client.sendall(f"POST /?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n".encode())
        client.sendall(b"1,a\n" * 5_000_000)  # more than what buffers on the way hold
    until(lambda: post(embedded_clickhouse, "SELECT 1", query_id="broken").status == 200, "the insert's end")
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "0"


def test_a_repeated_token_stores_once(embedded_clickhouse, table):
    """The same insert_deduplication_token twice is one insert; without a token rows are stored again."""
    for token in ("x", "x", "y"):
        answer = post(
            embedded_clickhouse, "1,a\n", query=f"INSERT INTO {table} FORMAT CSV", insert_deduplication_token=token
        )
        assert answer.status == 200
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "2"
    post(embedded_clickhouse, f"INSERT INTO {table} SETTINGS insert_deduplication_token = 'y' FORMAT CSV\n1,a\n")
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "2"


def test_chunked_bodies_and_expect_continue(embedded_clickhouse, table):
    """What curl sends for a large body: it waits for 100 Continue."""
    chunks = (b"%d,a\n" % n * 100 for n in range(100))
    answer = post(embedded_clickhouse, chunks, query=f"INSERT INTO {table} FORMAT CSV")
    assert answer.status == 200, answer.text
    with socket.create_connection(("127.0.0.1", embedded_clickhouse.port), timeout=DEADLINE_S) as client:
        query = urlencode({"query": f"INSERT INTO {table} FORMAT CSV"})
        head = f"POST /?{query} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"1,a\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "10001"


# --- clickhouse-go and Grafana ---------------------------------------------------------------------------------------


def test_native_in_checksummed_blocks_both_ways(embedded_clickhouse, table):
    """What clickhouse-go's HTTP mode sends and reads with lz4: ClickHouse's own blocks."""
    native = post(embedded_clickhouse, "SELECT number AS a, toString(a) AS b FROM numbers(100000) FORMAT Native").body
    packer = BlockCompressor()
    packed = packer.compress(native) + packer.flush()
    answer = post(embedded_clickhouse, packed, query=f"INSERT INTO {table} FORMAT Native", decompress="1", compress="1")
    assert (answer.status, answer.body) == (200, b"")
    answer = post(embedded_clickhouse, f"SELECT * FROM {table} ORDER BY a FORMAT Native", compress="1", max_threads="1")
    unpacker = BlockDecompressor()
    plain = b"".join(unpacker.feed(answer.body))
    unpacker.finish()
    assert plain == post(embedded_clickhouse, f"SELECT * FROM {table} ORDER BY a FORMAT Native", max_threads="1").body
    packed = packed[:50] + bytes([packed[50] ^ 1]) + packed[51:]
    answer = post(embedded_clickhouse, packed, query=f"INSERT INTO {table} FORMAT Native", decompress="1")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "40"


def test_native_of_a_clients_revision(embedded_clickhouse):
    """The greeting of clickhouse-go: blocks with info, columns with the flag of their serialization."""
    query = "SELECT displayName(), version(), revision(), timezone()"
    answer = post(embedded_clickhouse, query, default_format="Native", client_protocol_version="54460")
    assert answer.body.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00")
    plain = post(embedded_clickhouse, query, default_format="Native").body
    assert len(answer.body) == len(plain) + 8 + 4
    answer = post(embedded_clickhouse, "SELECT sumState(1)", default_format="Native", client_protocol_version="54460")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "48"


# --- clickhouse-connect ----------------------------------------------------------------------------------------------


def client_of(server: ClickHouse, **arguments):
    return clickhouse_connect.get_client(host="127.0.0.1", port=server.port, **arguments)


@pytest.mark.parametrize("compress", [False, True, "lz4", "zstd", "gzip"])
def test_clickhouse_connect_inserts_and_reads(embedded_clickhouse, table, compress):
    """The driver's way through: native inserts, rows, data frames, Arrow, streams, parameters."""
    with client_of(embedded_clickhouse, compress=compress) as client:
        rows = [[n, f"row {n}"] for n in range(10_000)]
        summary = client.insert(table, rows, column_names=["a", "b"], settings={"insert_deduplication_token": "z"})
        assert summary.written_rows == 10_000
        client.insert(table, rows, column_names=["a", "b"], settings={"insert_deduplication_token": "z"})
        result = client.query(f"SELECT * FROM {table} ORDER BY a")
        assert result.result_rows == [tuple(row) for row in rows]
        assert int(result.summary["read_rows"]) == 10_000
        assert client.query("SELECT {x:String}", parameters={"x": "it's"}).first_row == ("it's",)
        assert client.query_df(f"SELECT count() AS c FROM {table}")["c"][0] == 10_000
        assert client.query_arrow(f"SELECT * FROM {table}").num_rows == 10_000
        with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(500000)") as blocks:
            assert sum(len(block) for block in blocks) == 500_000
        assert client.command("SELECT 7") == 7
        assert client.query(f"SELECT * FROM {table} LIMIT 0").column_names == ("a", "b")


def test_clickhouse_connect_sees_errors(embedded_clickhouse):
    """Errors before and after the first rows come as the driver's own exceptions, with code and text."""
    with client_of(embedded_clickhouse) as client:
        with pytest.raises(DatabaseError, match=r"code: 60.*UNKNOWN_TABLE"):
            client.query("SELECT * FROM nope")
        query = "SELECT number, throwIf(number = 2000000) FROM numbers(3000000)"
        with (
            pytest.raises(StreamFailureError, match=r"Code: 395"),
            client.query_row_block_stream(query, settings={"max_block_size": 10_000}) as blocks,
        ):
            for _ in blocks:
                pass
        assert client.command("SELECT 1") == 1


def test_clickhouse_connect_sends_forms_and_external_data(embedded_clickhouse):
    """Parameters as a form, and a table beside the query."""
    with client_of(embedded_clickhouse, form_encode_query_params=True) as client:
        assert client.query("SELECT {x:String}", parameters={"x": "é' " * 1000}).first_row == ("é' " * 1000,)
        data = ExternalData(
            file_name="people.csv", data=b"1,Ann\n2,Bob\n", fmt="CSV", structure="id UInt8, name String"
        )
        result = client.query("SELECT name FROM people WHERE id = 2", external_data=data)
        assert result.result_rows == [("Bob",)]


def test_sessions_keep_what_was_set_in_them(embedded_clickhouse):
    """Temporary tables and SET live in a session; a request's own settings and database do not."""
    with client_of(embedded_clickhouse) as client:
        client.command("CREATE TEMPORARY TABLE mine (x UInt8)")
        client.insert("mine", [[1], [2]], column_names=["x"], column_type_names=["UInt8"])
        client.command("SET max_block_size = 1234")
        query = "SELECT sum(x), getSetting('max_block_size'), getSetting('max_result_rows') FROM mine"
        assert client.query(query, settings={"max_result_rows": 77}).first_row == (3, 1234, 77)
        assert client.query(query).first_row == (3, 1234, 0)
        assert client.query(query, settings={"max_block_size": 99}).first_row == (3, 99, 0)
        assert client.query(query).first_row == (3, 1234, 0)
    session = {"session_id": "one"}
    assert value(embedded_clickhouse, "SELECT currentDatabase()", database="system", **session) == "system"
    assert value(embedded_clickhouse, "SELECT currentDatabase()", **session) == "default"
    answer = post(embedded_clickhouse, "SELECT {x:UInt8}", param_x="1", **session)
    assert answer.status == 200
    assert post(embedded_clickhouse, "SELECT {x:UInt8}", **session).headers["X-ClickHouse-Exception-Code"] == "456"


def test_sessions_are_checked_locked_and_end(embedded_clickhouse):
    """An unknown session can be refused, a busy one is locked, and an unused one ends after its time."""
    answer = post(embedded_clickhouse, "SELECT 1", session_id="unknown", session_check="1")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "372"
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: post(embedded_clickhouse, "SELECT sleep(3)", session_id="busy"), range(2)))
    assert {answer.headers.get("X-ClickHouse-Exception-Code") for answer in answers} == {None, "373"}
    assert post(embedded_clickhouse, "SELECT 1", session_id="short", session_timeout="1").status == 200

    def ended():
        answer = post(embedded_clickhouse, "SELECT 1", session_id="short", session_check="1", session_timeout="0")
        return answer.headers.get("X-ClickHouse-Exception-Code") == "372"

    until(ended, "the session's end")


async def test_the_async_client_works_side_by_side(embedded_clickhouse, table):
    """Twelve sleeping queries take the time of one, and inserts go through beside them."""
    client = await clickhouse_connect.get_async_client(host="127.0.0.1", port=embedded_clickhouse.port)
    try:
        began = time.monotonic()
        slow = [asyncio.create_task(client.query("SELECT sleep(2)")) for _ in range(12)]
        for n in range(5):
            await client.insert(table, [[n, "x"]], column_names=["a", "b"])
        assert not any(task.done() for task in slow)
        await asyncio.gather(*slow)
        assert time.monotonic() - began < 12
        assert (await client.query(f"SELECT count() FROM {table}")).first_row == (5,)
    finally:
        await client.close()


# --- load and limits -------------------------------------------------------------------------------------------------


def test_slow_queries_do_not_hold_up_inserts(embedded_clickhouse, table):
    """With every query place taken by slow queries, inserts are stored while all of those still run."""
    query = "SELECT sum(sipHash64(number)) FROM numbers(1e12) SETTINGS max_threads = 1"
    running = "SELECT count() FROM system.processes WHERE startsWith(query_id, 'hold-')"
    with ThreadPoolExecutor(16) as threads:
        slow = [threads.submit(post, embedded_clickhouse, query, query_id=f"hold-{n}") for n in range(15)]
        try:
            until(lambda: value(embedded_clickhouse, running) == "15", "the slow queries' start")
            slow.append(threads.submit(post, embedded_clickhouse, query, query_id="hold-15"))
            for n in range(10):
                answer = post(embedded_clickhouse, f"{n},x\n", query=f"INSERT INTO {table} FORMAT CSV")
                assert answer.status == 200
                assert answer.summary["written_rows"] == 1
            assert not any(task.done() for task in slow)
        finally:
            for n in range(16):
                post(embedded_clickhouse, f"KILL QUERY WHERE query_id = 'hold-{n}'")
        codes = {task.result(DEADLINE_S).headers["X-ClickHouse-Exception-Code"] for task in slow}
    assert codes == {"394"}
    assert value(embedded_clickhouse, f"SELECT count() FROM {table}") == "10"


def test_a_client_that_leaves_ends_its_query(embedded_clickhouse):
    """No query runs on for a reader that is gone, before or after the first rows."""
    for name, query in (
        ("early", "SELECT sum(sipHash64(number)) FROM numbers(1e12)"),
        ("late", "SELECT * FROM numbers(1e12)"),
    ):
        running = f"SELECT count() FROM system.processes WHERE query_id = '{name}'"
        client = http.client.HTTPConnection("127.0.0.1", embedded_clickhouse.port, timeout=DEADLINE_S)
        client.request("POST", "/?" + urlencode({"query_id": name}), query)
        until(lambda sql=running: value(embedded_clickhouse, sql) == "1", "the query's start")
        client.close()
        until(lambda sql=running: value(embedded_clickhouse, sql) == "0", "the query's end")


def memory_mb(server: ClickHouse) -> int:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_large_results_and_bodies_take_bounded_memory(embedded_clickhouse, table):
    """400 MB out to a slow reader and 200 MB in leave the process within 300 MB of where it was."""
    before, most = memory_mb(embedded_clickhouse), 0
    client = http.client.HTTPConnection("127.0.0.1", embedded_clickhouse.port, timeout=DEADLINE_S)
    client.request("POST", "/", "SELECT number, repeat('x', 90) FROM numbers(4000000)")
    response = client.getresponse()
    size = 0
    while data := response.read(1 << 20):
        size += len(data)
        most = max(most, memory_mb(embedded_clickhouse))
    client.close()
    assert size > 380_000_000

    def body():
        nonlocal most
        row = b"1," + b"y" * 100 + b"\n"
        for n in range(200):
            if n % 10 == 0:
                most = max(most, memory_mb(embedded_clickhouse))
            yield row * 10_000

    answer = post(embedded_clickhouse, body(), query=f"INSERT INTO {table} FORMAT CSV")
    assert answer.status == 200, answer.text
    assert answer.summary["written_rows"] == 2_000_000
    assert most - before < 500
