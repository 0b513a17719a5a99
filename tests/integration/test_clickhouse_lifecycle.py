"""The server's life: start, password, what it refuses to start on, graceful end, kill -9 and what survives it."""

import base64
import http.client
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from runtime.platform.settings import load
from schemas.migration_steps import MIGRATIONS
from sinks.clickhouse_connection import connect
from sinks.migrator import migrate
from tests.integration.test_clickhouse_http import call, post, until, value
from tests.stack import ClickHouse

TABLE = (
    "CREATE TABLE t (batch UInt64, row UInt64) ENGINE = MergeTree ORDER BY (batch, row) "
    "SETTINGS non_replicated_deduplication_window = 1000"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouse]:
    """A server that may be killed."""
    server = ClickHouse(tmp_path / "data")
    server.start()
    value(server, TABLE)
    yield server
    if server.process is not None:
        server.end(signal.SIGKILL)


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedded.clickhouse", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def insert(server: ClickHouse, batch: int, rows: int = 100, attempt: str = "first"):
    """A batch of rows under a token of its own; another `attempt` is another insert of the same rows."""
    body = b"".join(b"%d,%d\n" % (batch, row) for row in range(rows))
    return post(server, body, query="INSERT INTO t FORMAT CSV", insert_deduplication_token=f"{attempt}-{batch}")


def stored_batches(server: ClickHouse, rows: int) -> set[int]:
    """The batches that are there, each of them once and whole."""
    broken = value(server, f"SELECT count() FROM (SELECT batch FROM t GROUP BY batch HAVING count() != {rows})")
    assert broken == "0"
    return set(map(int, value(server, "SELECT DISTINCT batch FROM t").split()))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_answered_survives(server, how):
    """Tables, rows and the memory of tokens outlive an end of either kind."""
    for batch in range(20):
        assert insert(server, batch).status == 200
    status = server.end(how)
    assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    server.start()
    assert value(server, "SELECT count(), uniqExact(batch) FROM t") == "2000\t20"
    for batch in range(21):
        assert insert(server, batch).status == 200
    assert value(server, "SELECT count(), uniqExact(batch) FROM t") == "2100\t21"


def test_kill_in_the_middle_of_inserts_loses_nothing_and_halves_nothing(server):
    """Six kills under load: each acknowledged batch is there, once and whole, before and after the sender's repetition.

    A batch without an answer is there whole or not at all, and its repetition with the same token never doubles it. If
    it is not there after the repetition (docs/decisions/0011), it is stored under a new token.
    """
    rows, acknowledged, started = 5_000, set(), set()
    batches = iter(range(1_000_000))
    rng = random.Random(7)

    def sender(stop: threading.Event) -> None:
        while not stop.is_set():
            batch = next(batches)
            started.add(batch)
            try:
                if insert(server, batch, rows).status == 200:
                    acknowledged.add(batch)
            except (OSError, http.client.HTTPException):
                return

    for _ in range(6):
        stop = threading.Event()
        before = len(acknowledged)
        with ThreadPoolExecutor(3) as threads:
            for _ in range(3):
                threads.submit(sender, stop)
            until(lambda n=before: len(acknowledged) > n + 3, "some inserts")
            time.sleep(rng.random() * 0.05)
            server.end(signal.SIGKILL)
            stop.set()
        server.start()
        assert acknowledged <= stored_batches(server, rows) <= started
    for batch in started:
        assert insert(server, batch, rows).status == 200
    missing = started - stored_batches(server, rows)
    assert not missing & acknowledged
    for batch in missing:
        assert insert(server, batch, rows, attempt="second").status == 200
    assert stored_batches(server, rows) == started


def test_a_token_outlives_a_part_that_was_never_committed(server):
    """What kill -9 leaves between ClickHouse's log of tokens and the part: a repetition is 200 and may store nothing.

    It never doubles, and under a new token the rows are stored: what docs/decisions/0011 has the sink do.
    """
    assert insert(server, 1).status == 200
    table = Path(value(server, "SELECT data_paths[1] FROM system.tables WHERE name = 't'"))
    (part,) = value(server, "SELECT name FROM system.parts WHERE table = 't' AND active").split()
    server.end(signal.SIGKILL)
    shutil.rmtree(table / part)
    server.start()
    assert stored_batches(server, 100) == set()
    assert insert(server, 1).status == 200
    if 1 not in stored_batches(server, 100):
        assert insert(server, 1, attempt="second").status == 200
    assert stored_batches(server, 100) == {1}


def test_sigterm_lets_inserts_end_and_stops_queries(server):
    """An insert whose body still arrives is stored, a query gets its cancellation as an error, requests are refused."""
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(post, server, "SELECT sum(sipHash64(number)) FROM numbers(1e12)", query_id="slow")
        begun, go_on = threading.Event(), threading.Event()

        def body():
            for _ in range(20):  # more than what buffers on the way hold
                yield b"1,1\n" * 250_000
            begun.set()
            go_on.wait(30)
            yield b"1,2\n"

        arriving = threads.submit(post, server, body(), query="INSERT INTO t FORMAT CSV")
        running = "SELECT count() FROM system.processes WHERE query_id = 'slow'"
        until(lambda: value(server, running) == "1", "the query")
        assert begun.wait(30)
        ended = threads.submit(server.end)
        assert slow.result(30).headers["X-ClickHouse-Exception-Code"] == "394"
        assert not ended.done()
        go_on.set()
        assert arriving.result(30).status == 200
        assert ended.result(30) == 0
    server.start()
    assert value(server, "SELECT count() FROM t") == "5000001"


def test_sigterm_does_not_wait_for_ever(tmp_path):
    """An insert whose body never ends is given up after the grace period, and has stored nothing."""
    server = ClickHouse(tmp_path / "data", arguments=("--grace-s", "1"))
    server.start()
    value(server, TABLE)
    with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
        client.putrequest("POST", "/?query=INSERT+INTO+t+FORMAT+CSV")
        client.putheader("Content-Length", "1000000000")
        client.endheaders()
        client.send(b"1,1\n" * 5_000_000)  # more than what buffers on the way hold
        assert server.end() == 0
    server.start()
    assert value(server, "SELECT count() FROM t") == "0"
    server.end()


def test_the_password_is_asked_for_in_every_way(tmp_path):
    """With a password set: none is 401 and 194, a wrong one 403 and 516, the right one passes in all three ways."""
    server = ClickHouse(
        tmp_path / "data",
        arguments=("--user", "eve", "--password-from-env", "TEST_PASSWORD"),
        environ={"TEST_PASSWORD": "pässword:1"},
    )
    server.start()

    def basic(user: str, password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    try:
        anonymous = post(server, "SELECT 1")
        assert (anonymous.status, anonymous.headers["X-ClickHouse-Exception-Code"]) == (401, "194")
        assert anonymous.headers["WWW-Authenticate"].startswith("Basic ")
        for wrong in (basic("eve", "x"), basic("default", "pässword:1"), {"X-ClickHouse-User": "eve"}):
            answer = post(server, "SELECT 1", wrong)
            assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
            assert "pässword" not in answer.text
        assert post(server, "SELECT 1", basic("eve", "pässword:1")).text == "1\n"
        assert post(server, "SELECT 1", user="eve", password="pässword:1").text == "1\n"
        key = "pässword:1".encode().decode("latin-1")
        assert post(server, "SELECT 1", {"X-ClickHouse-User": "eve", "X-ClickHouse-Key": key}).text == "1\n"
        assert call(server, "GET", "/ping").status == 200
        command = Path(f"/proc/{server.pid}/cmdline")
        assert not command.exists() or b"ssword:1" not in command.read_bytes()
    finally:
        server.end()


async def test_any_user_of_its_own_may_migrate(tmp_path):
    """Its only user may have any name, as in Compose: the schema is made, and the views run with that user's rights."""
    server = ClickHouse(
        tmp_path / "data",
        arguments=("--user", "eve", "--password-from-env", "TEST_PASSWORD"),
        environ={"TEST_PASSWORD": "secret"},
    )
    server.start()
    settings = load(
        {
            "EVENTPUSH_CLICKHOUSE_URL": f"http://127.0.0.1:{server.port}",
            "EVENTPUSH_CLICKHOUSE_USER": "eve",
            "EVENTPUSH_CLICKHOUSE_PASSWORD": "secret",
        }
    )
    try:
        client = await connect(settings)
        assert len(await migrate(client, settings)) == len(MIGRATIONS)
        reads_as_owner = "create_table_query LIKE '% SQL SECURITY DEFINER %'"
        views = f"SELECT count(), countIf({reads_as_owner}) FROM system.tables WHERE database = 'telematics'"
        ((of_owner, all_views),) = (await client.query(f"{views} AND engine = 'View'")).result_rows
        assert of_owner == all_views > 10
        assert await migrate(client, settings) == []
        await client.close()
    finally:
        server.end()


def test_a_query_that_wants_too_much_memory_fails_alone(tmp_path):
    """The bound holds for a query and for all: the query fails with 241, the process lives on."""
    server = ClickHouse(tmp_path / "data", arguments=("--memory-bytes", str(400 << 20)))
    server.start()
    try:
        greedy = "SELECT count() FROM (SELECT number, groupArray(toString(number)) FROM numbers(2e7) GROUP BY number)"
        settings = {"max_bytes_before_external_group_by": "0", "max_bytes_ratio_before_external_group_by": "0"}
        answer = post(server, greedy, **settings)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "241"
        assert value(server, "SELECT 1") == "1"
    finally:
        server.end()


def test_one_directory_one_process(server):
    """A second one on the same data says who has it, and disturbs nothing."""
    second = refused("--port", "0", "--data-dir", str(server.data_dir))
    assert second.returncode == 1
    assert second.stdout == ""
    assert len(second.stderr.splitlines()) == 1
    assert f"is in use by another ClickHouse (process {server.pid})" in second.stderr
    assert value(server, "SELECT 1") == "1"


def test_a_taken_port_is_one_clear_line(tmp_path):
    """The port is named, nothing is left running, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = refused("--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert f"ClickHouse cannot listen on 127.0.0.1:{port}" in answer.stderr


def test_an_unusable_directory_is_one_clear_line(tmp_path):
    """A path that cannot become a directory, or may not be written, is named with the remedy."""
    (tmp_path / "file").write_text("")
    paths = [tmp_path / "file" / "data"]
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        paths.append(tmp_path / "locked" / "data")
    for path in paths:
        answer = refused("--port", "0", "--data-dir", str(path))
        assert answer.returncode == 1
        assert len(answer.stderr.splitlines()) == 1
        assert f"{path} cannot be used for ClickHouse's data" in answer.stderr


def test_no_room_is_one_clear_line(tmp_path):
    """A directory in which nothing can be written any more is named; here a limit stands in for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        answer = refused("--port", "0", "--data-dir", str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert f"{tmp_path} cannot be used for ClickHouse's data" in answer.stderr


def test_a_missing_password_is_one_clear_line(tmp_path):
    """A password that is not there is never taken for no password."""
    answer = refused("--port", "0", "--data-dir", str(tmp_path), "--password-from-env", "NO_SUCH_VARIABLE")
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        "NO_SUCH_VARIABLE holds no password for ClickHouse: set it, or leave --password-from-env out"
    ]


def test_it_starts_again_when_only_other_databases_have_tables(tmp_path: Path) -> None:
    """As after `eventpush up`, whose tables are all in `telematics`; they are there again."""
    server = ClickHouse(tmp_path / "data")
    server.start()
    value(server, "CREATE DATABASE other")
    value(server, "CREATE TABLE other.t (a UInt8) ENGINE = MergeTree ORDER BY a")
    value(server, "INSERT INTO other.t SELECT 1")
    for _ in range(2):
        server.end(signal.SIGTERM)
        server.start()
        assert value(server, "SELECT a FROM other.t") == "1"
    server.end(signal.SIGTERM)
