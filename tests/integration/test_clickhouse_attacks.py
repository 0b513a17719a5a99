"""Attacks on the embedded ClickHouse through its port: files, programs, the network, and requests of web pages."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from embedded.clickhouse import policy, privileges, statement
from tests.integration.clickhouse_fixture import embedded_clickhouse
from tests.stack import ClickHouse

__all__ = ["embedded_clickhouse"]

PASSWD = "'/etc/passwd'"
BACKSLASHED = r"\'/etc/passwd\'"


def send(
    server: ClickHouse,
    sql: str = "",
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    **fields: str,
) -> tuple[int, str]:
    """One request; its status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, "/?" + urllib.parse.urlencode(fields), sql.encode() or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of ours that no statement may reach."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield listening


def assert_untouched(listener: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listener.accept()


READS = {
    "table function": f"SELECT * FROM file({PASSWD}, LineAsString)",
    "comment": f"SELECT * FROM /* x */ file -- y\n ({PASSWD}, LineAsString)",
    "quoted": f"SELECT * FROM `file`({PASSWD}, LineAsString)",
    "nested": f"SELECT (SELECT count() FROM (SELECT * FROM file({PASSWD}, LineAsString)))",
    "CTE": f"WITH x AS (SELECT * FROM file({PASSWD}, LineAsString)) SELECT * FROM x",
    "describe": f"DESCRIBE TABLE file({PASSWD})",
    "table's name": "SELECT * FROM `/etc/passwd`",
    "cluster": f"SELECT * FROM fileCluster('default', {PASSWD}, LineAsString)",
    "insert select": f"INSERT INTO FUNCTION null('a String') SELECT * FROM file({PASSWD}, LineAsString)",
    "scalar": f"SELECT file({PASSWD})",
    "scalar, commented": f"SELECT file/**/({PASSWD})",
    "scalar, backquoted": rf"SELECT `fi\x6ce`({PASSWD})",
    "scalar, quoted": f'SELECT "file"({PASSWD})',
    "scalar, no-break space": f"SELECT file\u00a0({PASSWD})",
    "scalar, typographic": f"SELECT \u201cfile\u201d({PASSWD})",
    "scalar, hidden by typographic quotes": f"SELECT \u2018'\u2019, file/*'*/({PASSWD})",
    "scalar, handed on": f"SELECT arrayMap(file, [{PASSWD}])",
    "scalar, handed on in brackets": f"SELECT arrayMap((file), [{PASSWD}])",
    "scalar, handed on by a parameter": f"SELECT arrayMap({{f:Identifier}}, [{PASSWD}])",
    "scalar, handed on by an escaped parameter": f"SELECT arrayMap({{g:Identifier}}, [{PASSWD}])",
    "scalar, applied": f"SELECT * APPLY file FROM (SELECT {PASSWD} AS a)",
    "scalar, applied in brackets": f"SELECT * APPLY(file) FROM (SELECT {PASSWD} AS a)",
    "default": f"SELECT * FROM format(JSONEachRow, 'z UInt8, a String DEFAULT file({BACKSLASHED})', '{{\"z\":1}}')",
    "default, joined": "SELECT * FROM format(JSONEachRow, concat('z UInt8, a String DEFAULT fi', "
    f"'le({BACKSLASHED})'), '{{\"z\":1}}')",
    "default, operator": "SELECT * FROM format(JSONEachRow, 'z UInt8, a String DEFAULT fi' || "
    f"'le({BACKSLASHED})', '{{\"z\":1}}')",
    "default, alias": f"WITH 'z UInt8, a String DEFAULT fi' || 'le({BACKSLASHED})' AS s "
    "SELECT * FROM format(JSONEachRow, s, '{\"z\":1}')",
    "default, ternary": f"SELECT * FROM format('{{' = '' ? 'x' : 'JSONEachRow', 'z UInt8, a String DEFAULT fi' || "
    f"'le({BACKSLASHED})', '{{\"z\":1}}')",
    "default, values": f"SELECT * FROM values('a String DEFAULT fi' || 'le({BACKSLASHED})', (''))",
    "default, null": f"INSERT INTO FUNCTION null('a String DEFAULT fi' || 'le({BACKSLASHED})') SELECT ''",
    "default, parameter": "SELECT * FROM format(JSONEachRow, {s:String}, '{\"z\":1}')",
    "default, generateRandom": f"SELECT * FROM generateRandom('a String DEFAULT file({BACKSLASHED})') LIMIT 1",
    "rows of format": f"SELECT * FROM format(Values, 'a String', '(file({BACKSLASHED}))')",
    "filter": f"SELECT 1 SETTINGS additional_result_filter = 'throwIf(1, file({BACKSLASHED}))'",
    "explain": f"SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file({PASSWD})))",
    "heredoc": f"SELECT * FROM format(JSONEachRow, $x$z UInt8, a String DEFAULT file({PASSWD})$x$, '{{\"z\":1}}')",
    "eval": f"SELECT * FROM eval('SELECT * FROM file({BACKSLASHED}, LineAsString)')"
    " SETTINGS allow_experimental_eval_table_function = 1",
    "filesystem": "SELECT * FROM filesystem('/etc')",
    "sqlite": f"SELECT * FROM sqlite({PASSWD}, 't')",
    "iceberg": "SELECT * FROM icebergLocal('/etc')",
    "schema": f"SELECT 1 FORMAT Protobuf SETTINGS format_schema = {PASSWD}",
    "template": f"SELECT 1 FORMAT Template SETTINGS format_template_row = {PASSWD}",
    "python": "SELECT * FROM python(os)",
    "executable": "SELECT * FROM executable('id', TSV, 'a String')",
    "infile": f"INSERT INTO FUNCTION null('a String') FROM INFILE {PASSWD} FORMAT LineAsString",
    "infile after WITH": f"WITH 1 AS x INSERT INTO FUNCTION null('a String') FROM INFILE {PASSWD} FORMAT LineAsString",
    "multi-statement": f"SELECT 1; SELECT * FROM file({PASSWD}, LineAsString)",
    "view": f"CREATE VIEW default.v AS SELECT * FROM file({PASSWD}, LineAsString)",
    "scalar in a view": f"CREATE VIEW default.w AS SELECT file({PASSWD}) AS a",
    "scalar as default": f"CREATE TABLE default.x (z UInt8, a String DEFAULT file({PASSWD})) ENGINE = Memory",
    "scalar as alias": f"CREATE TABLE default.x (z UInt8, a String ALIAS file({PASSWD})) ENGINE = Memory",
    "function": f"CREATE FUNCTION f AS x -> file({PASSWD})",
    "engine": f"CREATE TABLE default.e (a String) ENGINE = File(LineAsString, {PASSWD})",
    "engine, temporary": f"CREATE TEMPORARY TABLE e (a String) ENGINE = File(LineAsString, {PASSWD})",
    "engine, copied": f"CREATE TABLE default.e AS file({PASSWD}, LineAsString)",
    "log": "CREATE TABLE default.e (a String) ENGINE = FileLog('/etc/', LineAsString)",
    "RocksDB": "CREATE TABLE default.e (a String) ENGINE = EmbeddedRocksDB(0, '/tmp') PRIMARY KEY a",
    "database": "CREATE DATABASE e ENGINE = Filesystem('/')",
    "database, SQLite": f"CREATE DATABASE e ENGINE = SQLite({PASSWD})",
    "attach": "ATTACH TABLE default.e FROM '/etc/' (a String) ENGINE = MergeTree ORDER BY a",
    "scalar, empty escape": rf"SELECT `fi\Nle`({PASSWD})",
    "scalar, behind a comment in a string": "SELECT * FROM format(JSONEachRow, "
    rf"'z UInt8, a String DEFAULT --\n file({BACKSLASHED})', '{{\"z\":1}}')",
    "scalar, hidden by a line comment": f"SELECT //'\n `fi\\x6ce`({PASSWD}) //'",
    "scalar, hidden by nested comments": f"SELECT /* /* */ ' */ `fi\\x6ce`({PASSWD}) -- '",
    "scalar, hexadecimal filter": "SELECT 1 SETTINGS additional_result_filter = "
    f"x'{f'throwIf(1, file({PASSWD}))'.encode().hex()}'",
    "scalar, parameter of SET": f"SELECT arrayMap({{never_given:Identifier}}, [{PASSWD}])",
    "scalar, parameter of a view": f"CREATE VIEW default.pv AS SELECT arrayMap({{v:Identifier}}, [{PASSWD}]) AS a",
    "scalar, method": f"SELECT t.file({PASSWD}) FROM (SELECT 1 AS a) AS t",
    "infile, hexadecimal": f"INSERT INTO FUNCTION null('a String') FROM INFILE x'{b'/etc/passwd'.hex()}' "
    "FORMAT LineAsString",
    "dialect": "SELECT 1 SETTINGS allow_experimental_kusto_dialect = 1, dialect = 'kusto'",
    "copy": f"COPY (SELECT 1) TO {PASSWD}",
    "AI": "SELECT aiGenerate('a') SETTINGS allow_experimental_ai_functions = 1",
    "disk": "CREATE TABLE default.e (a Int8) ENGINE = MergeTree ORDER BY a "
    "SETTINGS disk = disk(type = local, path = '/tmp/e/')",
}  # fmt: skip


@pytest.mark.parametrize("sql", READS.values(), ids=READS.keys())
def test_no_file_is_read(embedded_clickhouse, sql):
    """No statement shows a file, or makes an object that could."""
    structure = f"z UInt8, a String DEFAULT file({PASSWD})"
    status, text = send(embedded_clickhouse, sql, param_s=structure, param_f="file", param_g=r"fi\x6ce")
    assert status >= 400, text
    assert "root:" not in text


def test_no_file_is_read_by_rows(embedded_clickhouse):
    """Rows of VALUES are literals where an expression could read a file; literals that look like one are stored."""
    assert send(embedded_clickhouse, "CREATE TABLE default.r (a String) ENGINE = Memory")[0] == 200
    for row in (f"file({PASSWD})", f"`fi\\x6ce`({PASSWD})", f"(SELECT file({PASSWD}))", f'"file"({PASSWD})'):
        for head in ("", "SETTINGS input_format_values_interpret_expressions = 1"):
            assert send(embedded_clickhouse, f"INSERT INTO default.r {head} VALUES ({row})")[0] >= 400, row
            assert send(embedded_clickhouse, f"({row})", query=f"INSERT INTO default.r {head} FORMAT Values")[0] >= 400
    assert send(embedded_clickhouse, "INSERT INTO default.r VALUES ('file (1).txt'), (upper('b'))")[0] >= 400
    assert send(embedded_clickhouse, "INSERT INTO default.r VALUES ('file (1).txt'), ('b')")[0] == 200
    assert send(embedded_clickhouse, "INSERT INTO default.r VALUES (upper('c'))")[0] == 200
    assert send(embedded_clickhouse, "SELECT a FROM default.r ORDER BY a")[1] == "C\nb\nfile (1).txt\n"


def test_no_file_is_read_by_settings_of_the_url(embedded_clickhouse):
    """Settings in the URL are checked as those in the text."""
    fields: dict[str, Any] = {"additional_result_filter": f"throwIf(1, file({PASSWD}))"}
    assert send(embedded_clickhouse, "SELECT 1", **fields)[0] == 403
    assert send(embedded_clickhouse, "SELECT 1 FORMAT Protobuf", format_schema="/etc/passwd")[0] >= 400
    assert send(embedded_clickhouse, f"SET format_schema = {PASSWD}", session_id="s")[0] >= 400


def test_no_file_is_read_by_a_parameter_that_comes_later(embedded_clickhouse):
    """SET may not name such a function; and a parameter may not be a function, whatever sets it."""
    assert send(embedded_clickhouse, "SET param_f = 'file'", session_id="parameters")[0] == 403
    assert send(embedded_clickhouse, "SET param_f = 'upper'", session_id="parameters")[0] == 200
    status, text = send(embedded_clickhouse, "SELECT arrayMap({f:Identifier}, ['a'])", session_id="parameters")
    assert status == 403, text
    assert send(embedded_clickhouse, "SELECT {f:Identifier}.a FROM (SELECT 7 AS a) AS t", param_f="t") == (200, "7\n")


def test_no_other_language_is_understood(embedded_clickhouse):
    """What the policy cannot read, the engine does not either."""
    for dialect in ("kusto", "prql", "polyglot", "promql"):
        fields: dict[str, Any] = {"dialect": dialect, f"allow_experimental_{dialect}_dialect": "1"}
        assert send(embedded_clickhouse, "SELECT 1", **fields)[0] >= 400, dialect


def test_no_file_is_read_by_external_data(embedded_clickhouse):
    """Rows of an external table in the format Values are not evaluated."""
    boundary = "x"
    for rows in (f"(file({PASSWD}))", f"(`fi\\Nle`({PASSWD}))", f"((SELECT file({PASSWD})))"):
        part = 'Content-Disposition: form-data; name="t"; filename="t"'
        body = f"--{boundary}\r\n{part}\r\n\r\n{rows}\r\n--{boundary}--\r\n"
        status, text = send(
            embedded_clickhouse,
            body,
            {"Content-Type": f"multipart/form-data; boundary={boundary}"},
            query="SELECT * FROM t",
            t_structure="a String",
            t_format="Values",
        )
        assert status == 403, text


def dictionary(source: str) -> str:
    return f"CREATE DICTIONARY default.d (a UInt64, b String) PRIMARY KEY a {source} LAYOUT(FLAT()) LIFETIME(0)"


def test_no_file_is_written(embedded_clickhouse, tmp_path):
    """No statement writes outside of the database."""
    target = tmp_path / "written"
    for sql in (
        f"INSERT INTO FUNCTION file('{target}', TSV, 'a String') VALUES ('x')",
        f"INSERT INTO TABLE FUNCTION file('{target}', TSV, 'a String') SELECT 'x'",
        f"SELECT 1 INTO OUTFILE '{target}'",
        f"SELECT 1 /* ; */ INTO/**/OUTFILE '{target}' FORMAT TSV",
        f"(SELECT 1) INTO OUTFILE '{target}'",
        f"SELECT 1 INTO\u00a0OUTFILE '{target}'",
        f"BACKUP DATABASE default TO File('{target}')",
        f"RESTORE DATABASE default FROM File('{target}')",
        f"CREATE TABLE default.o (a String) ENGINE = File(TSV, '{target}')",
        f"SELECT 1 SETTINGS output_format_schema = '{target}'",
        f"INSERT INTO FUNCTION sqlite('{target}', 't') SELECT 1",
        f"SELECT * FROM icebergLocal('{target}')",
        f"CREATE DATABASE o ENGINE = Atomic SETTINGS disk = disk(type = local, path = '{target}/')",
        dictionary(f"SOURCE(CLICKHOUSE(QUERY 'SELECT 1, a FROM sqlite(\\'{target}\\', \\'t\\')'))"),
        dictionary("SOURCE(NULL())").replace("FLAT()", f"SSD_CACHE(PATH '{target}')"),
        dictionary("SOURCE(NULL())").replace("FLAT()", "COMPLEX_KEY_SSD_CACHE(PATH './written')"),
        "SYSTEM FLUSH LOGS",
        "CREATE USER u",
        "GRANT ALL ON *.* TO default",
        "CREATE NAMED COLLECTION c AS a = 1",
    ):
        assert send(embedded_clickhouse, sql)[0] >= 400, sql
        assert not target.exists(), sql


def test_no_program_is_run(embedded_clickhouse, tmp_path):
    """Dictionaries, tables and functions run no programs."""
    mark = tmp_path / "ran"
    for sql in (
        dictionary(f"SOURCE(EXECUTABLE(COMMAND 'touch {mark}' FORMAT TSV))"),
        dictionary(f"SOURCE /* x */ (`executable`(COMMAND 'touch {mark}' FORMAT TSV))"),
        dictionary(f"SOURCE(EXECUTABLE_POOL(COMMAND 'touch {mark}' FORMAT TSV))"),
        dictionary(f"//'\n SOURCE(EXECUTABLE(COMMAND $$touch {mark}$$ FORMAT TSV)) //'\n"),
        dictionary(f"/* /* */ ' */ SOURCE(EXECUTABLE(COMMAND $$touch {mark}$$ FORMAT TSV)) -- '\n"),
        dictionary(f", .1SOURCE(EXECUTABLE(COMMAND 'touch {mark}' FORMAT TSV))"),
        f"CREATE TABLE default.p (a String) ENGINE = Executable('touch {mark}', TSV)",
        f"CREATE TABLE default.p (a String) ENGINE = ExecutablePool('touch {mark}', TSV)",
        f"SELECT * FROM executable('touch {mark}', TSV, 'a String')",
    ):
        send(embedded_clickhouse, "DROP DICTIONARY IF EXISTS default.d")
        assert send(embedded_clickhouse, sql)[0] >= 400, sql
        assert send(embedded_clickhouse, "SELECT * FROM default.d")[0] >= 400
        assert not mark.exists(), sql


def test_no_connection_is_made(embedded_clickhouse, listener):
    """Nothing is sent to another address, not even to one of this machine."""
    port = listener.getsockname()[1]
    where, url = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/x"
    for sql in (
        f"SELECT * FROM url('{url}', LineAsString)",
        f"SELECT * FROM url(concat('{url}', (SELECT 'a')), LineAsString)",
        f"SELECT * FROM s3('{url}', LineAsString)",
        f"SELECT * FROM remote('{where}', system.one)",
        f"SELECT * FROM mysql('{where}', 'a', 'b', 'c', 'd')",
        f"SELECT * FROM postgresql('{where}', 'a', 'b', 'c', 'd')",
        f"SELECT * FROM mongodb('{where}', 'a', 'b', 'c', 'd', 'a String')",
        f"SELECT * FROM redis('{where}', 'a', 'a String')",
        f"SELECT * FROM hdfs('hdfs://{where}/x', 'TSV', 'a String')",
        f"SELECT * FROM jdbc('{url}', 'a', 'b')",
        f"SELECT * FROM odbc('{url}', 'a', 'b')",
        f"SELECT * FROM iceberg('{url}')",
        f"SELECT * FROM deltaLake('{url}')",
        f"CREATE TABLE default.n (a String) ENGINE = URL('{url}', TSV)",
        f"CREATE TABLE default.n (a String) ENGINE = Kafka('{where}', 't', 'g', 'TSV')",
        f"CREATE TABLE default.n (a String) ENGINE = MySQL('{where}', 'a', 'b', 'c', 'd')",
        f"CREATE DATABASE n ENGINE = MySQL('{where}', 'a', 'b', 'c')",
        f"CREATE DATABASE n ENGINE = PostgreSQL('{where}', 'a', 'b', 'c')",
        dictionary(f"SOURCE(HTTP(URL '{url}' FORMAT TSV))"),
        dictionary(f"SOURCE(MYSQL(HOST '127.0.0.1' PORT {port} USER 'a' PASSWORD 'b' DB 'c' TABLE 'd'))"),
        dictionary(f"SOURCE(CLICKHOUSE(HOST '127.0.0.1' PORT {port} TABLE 'one' DB 'system'))"),
        dictionary("SOURCE(CLICKHOUSE(HOST '192.0.2.1' TABLE 'one' DB 'system'))"),
        f"SELECT 1 FORMAT AvroConfluent SETTINGS format_avro_schema_registry_url = '{url}'",
        f"BACKUP DATABASE default TO S3('{url}', 'a', 'b')",
    ):
        send(embedded_clickhouse, "DROP DICTIONARY IF EXISTS default.d")
        assert send(embedded_clickhouse, sql)[0] >= 400, sql
        send(embedded_clickhouse, "SELECT * FROM default.d")
        assert_untouched(listener)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("path", ["/?query=SELECT+1", "/ping", "/"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:8123"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "169.254.1.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
    ids=str,
)
def test_web_pages_get_nothing(embedded_clickhouse, method, path, headers):
    """A foreign Host (DNS rebinding), a foreign Origin and cross-site requests are refused, whatever the method."""
    connection = http.client.HTTPConnection("127.0.0.1", embedded_clickhouse.port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        with connection.getresponse() as answer:
            assert answer.status == 403
    finally:
        connection.close()


def test_programs_of_this_machine_are_served(embedded_clickhouse):
    """Loopback names in the Host header are our own, with or without a port."""
    for host in ("localhost", "LOCALHOST:8123", "127.0.0.1", "127.1.2.3:1", "[::1]:8123", "localhost."):
        assert send(embedded_clickhouse, "SELECT 1", {"Host": host}) == (200, "1\n"), host


def test_a_password_that_was_not_set_is_wrong(embedded_clickhouse):
    """Without a password, only the empty one is right."""
    assert send(embedded_clickhouse, "SELECT 1", {"X-ClickHouse-Key": "anything"})[0] == 403


HARMLESS = (
    "SELECT * FROM numbers(3)",
    "SELECT * FROM values('a UInt8, b String', (1, 'x'), (2, upper('y')))",
    "SELECT * FROM generateRandom('a UInt8') LIMIT 1",
    "SELECT * FROM format(JSONEachRow, 'a UInt8', '{\"a\": 1}')",
    "SELECT format('{} {}', upper('a'), 'b')",
    "SELECT * FROM view(SELECT 1)",
    "SELECT count() FROM merge('system', '^one$')",
    "SELECT 1 AS file, file + 1",
    "CREATE TABLE default.file (file String, url String) ENGINE = MergeTree ORDER BY file",
    "INSERT INTO default.file (file, url) VALUES ('a', 'b')",
    "SELECT file, url FROM default.file",
    "CREATE MATERIALIZED VIEW default.mv ENGINE = Memory AS SELECT file FROM default.file",
    dictionary("SOURCE(CLICKHOUSE(TABLE 'file' DB 'default'))").replace("default.d ", "default.own "),
    dictionary("SOURCE(NULL())").replace("default.d ", "default.nothing "),
    "CREATE DATABASE another",
    "CREATE TEMPORARY TABLE t (a UInt8)",
)


@pytest.mark.parametrize("sql", HARMLESS)
def test_what_stays_inside_is_allowed(embedded_clickhouse, sql):
    """Functions, engines and dictionaries that reach nothing outside work as on a real server."""
    assert send(embedded_clickhouse, sql, session_id="harmless")[0] == 200, send(embedded_clickhouse, sql)


def names(server: ClickHouse, sql: str) -> set[str]:
    status, text = send(server, sql)
    assert status == 200, text
    return set(text.splitlines())


def test_every_function_of_the_engine_is_allowed_or_refused(embedded_clickhouse):
    """One for one: an engine with other functions fails this test until somebody decides on each."""
    functions = names(embedded_clickhouse, "SELECT name FROM system.functions")
    assert functions == policy.FUNCTIONS | policy.REFUSED_FUNCTIONS


def test_everything_else_of_the_engine_is_allowed_or_refused(embedded_clickhouse):
    """Table functions, engines and sources of dictionaries: those on the allow lists, and the recorded others."""
    found = {
        "table function": names(embedded_clickhouse, "SELECT lower(name) FROM system.table_functions"),
        "engine": names(embedded_clickhouse, "SELECT name FROM system.table_engines")
        | names(embedded_clickhouse, "SELECT name FROM system.database_engines"),
        "dictionary source": names(embedded_clickhouse, "SELECT name FROM system.dictionary_sources"),
        "dictionary layout": names(embedded_clickhouse, "SELECT name FROM system.dictionary_layouts"),
    }
    allowed = {
        "table function": policy.TABLE_FUNCTIONS,
        "engine": set(privileges.ENGINES),
        "dictionary source": policy.DICTIONARY_SOURCES,
        "dictionary layout": policy.LAYOUTS,
    }
    refused = set((Path(__file__).parent / "clickhouse_refused.txt").read_text().splitlines())
    for kind, names_allowed in allowed.items():
        assert found[kind] >= names_allowed
    assert {f"{kind} {name}" for kind in found for name in found[kind] - allowed[kind]} == refused


def test_the_fixed_settings_exist(embedded_clickhouse):
    """A setting with another name would not be fixed."""
    settings = names(
        embedded_clickhouse,
        "SELECT name FROM system.settings UNION ALL SELECT 'merge_tree_' || name FROM system.merge_tree_settings",
    )
    assert settings >= set(privileges.FIXED_SETTINGS)


_PIECES = (
    "'", '"', "`", "\\", "/", "*", "/*", "*/", "//", "--", "# ", "#!", "#", "$", "$$", "$a$", "a", "x'", "b'", "0x",
    "1", "1e5", ".", "\n", " ", "(", ")", "file", "\\N", "-", "_", ",", ";", "x'41'", "\u00a0", "{", "}", "=", "'a'",
)  # fmt: skip
_KINDS = {"StringLiteral": "string", "QuotedIdentifier": "name", "HereDoc": "doc", "BareWord": "word"}


def test_the_policy_reads_a_text_as_the_engine_does(embedded_clickhouse):
    """Strings, quoted names, heredocs and words of random texts are the same: none is hidden from the policy."""
    random = Random(12)
    compared = 0
    for _ in range(20):
        texts = ["".join(random.choices(_PIECES, k=random.randrange(1, 14))) for _ in range(20)]
        for text, found in zip(texts, engines_tokens(embedded_clickhouse, texts), strict=True):
            if any("Error" in kind for _, _, kind in found):
                continue  # the engine refuses it whole
            raw = text.encode()
            known = {(int(begin), int(end), _KINDS[kind]) for begin, end, kind in found if kind in _KINDS}
            engines = {token for token in known if not raw[token[0] : token[0] + 1].isdigit()}  # `1a` hides no name
            ours = {(t.start, t.end, "string" if t.kind == "hex" else t.kind) for t in statement.tokens(raw)}
            assert engines <= ours, text
            assert {token for token in ours if token[2] in {"string", "name", "doc"}} <= engines, text
            compared += 1
    assert compared > 100


def engines_tokens(server: ClickHouse, texts: list[str]) -> list[list[tuple[str, str, str]]]:
    status, answer = send(
        server,
        "SELECT arrayMap(s -> arrayMap(t -> (t.1, t.2, toString(t.3)), tokenizeQuery(s)), {texts:Array(String)}) "
        "FORMAT JSONCompactEachRow",
        param_texts=f"[{', '.join(map(statement.quote, texts))}]",
    )
    assert status == 200, answer
    tokens: list[list[tuple[str, str, str]]] = json.loads(answer)[0]
    return tokens


def start_old_engine(path: str) -> None:
    """Make a table in `default` as chdb itself does, in a process of its own."""
    script = (
        "import sys, chdb; k = chdb.connect(sys.argv[1]);"
        "k.query('CREATE TABLE default.old (a UInt8) ENGINE = MergeTree ORDER BY a');"
        "k.query('INSERT INTO default.old VALUES (7)'); k.close()"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("old", [False, True], ids=["new", "made before"])
def test_every_start_finds_the_default_database(tmp_path, number, old):
    """A directory opens again and again, also with an empty `default`; tables of earlier versions stay in it."""
    if old:
        start_old_engine(str(tmp_path / "clickhouse"))
    server = ClickHouse(tmp_path)
    for _ in range(3):
        server.start()
        try:
            assert send(server, "SHOW TABLES FROM default") == (200, "old\n" if old else "")
            assert send(server, "SELECT engine FROM system.databases WHERE name = 'default'") == (200, "Atomic\n")
            assert send(server, "SHOW DATABASES LIKE '%overlay%'") == (200, "")
            if old:
                assert send(server, "SELECT a FROM old") == (200, "7\n")
        finally:
            server.end(number)
