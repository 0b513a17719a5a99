"""`eventpush erase` on the real stack: gone from every store, and what Kafka keeps brings nothing back."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from embedded import preflight
from schemas import topics
from schemas.personal_data import DERIVED, PERSONAL_COLUMNS, SOURCES
from tests.integration.pipeline_support import Pipeline, clean_environ, own_pipeline, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.integration.test_rollups import STORED, TRUTH
from tests.stack import ROOT

ERASED, KEPT, OTHER = "350612075195931", "350612075195949", "350612075195956"
KEY = "a-key-of-the-deny-list"
DRIVER = "A. Rao"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with stores of its own: tests count everything in them."""
    home = tmp_path_factory.mktemp("erasure")
    with own_pipeline(home, EVENTPUSH_ERASURE_KEY=KEY, EVENTPUSH_TOPIC_PARTITIONS="2") as running:
        yield running


def event(imei: str, second: int, **fields: Any) -> dict[str, Any]:
    """An event of a device."""
    return SAMPLE | {"IMEI": imei, "Device_Time": f"2024-06-28T17:52:{second:02d}.000000+0000"} | fields


def run(pipeline: Pipeline, *arguments: str, status: int = 0) -> dict[str, Any]:
    """What `eventpush erase` prints."""
    result = pipeline.run("erase", *arguments)
    assert result.returncode == status, result
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def found_in(report: dict[str, Any]) -> dict[str, int]:
    """The stores in which something is, with how much."""
    return {store["store"]: store["found"] for store in report["stores"] if store["found"]}


def count(pipeline: Pipeline, imei: str) -> tuple[int, int]:
    """Rows of a device: events, replaced versions included, and dead letters."""
    query = (
        f"SELECT (SELECT count() FROM telematics.events_store WHERE imei = '{imei}') AS events,"
        f" (SELECT count() FROM telematics.dead_letters_store WHERE payload LIKE '%{imei}%') AS letters"
    )
    (row,) = pipeline.select(query)
    return row["events"], row["letters"]


def values(pipeline: Pipeline, query: str) -> list[str]:
    """The rows of a query, without the columns' names, in some order."""
    return sorted(json.dumps(list(row.values())) for row in pipeline.select(query))


def check_rollups(pipeline: Pipeline, *, stores: bool = True) -> None:
    """Each rollup is what its query says over the exact view; so is what its store holds, where it was refreshed.

    The sink may mirror the registry without the driver after the refresh: that rollup's store waits for its next one.
    """
    for rollup, truth in TRUTH.items():
        expected = values(pipeline, truth)
        assert values(pipeline, f"SELECT * FROM telematics.{rollup}") == expected, rollup
        is_settled = stores and rollup != "events_daily_as_of"
        assert not is_settled or values(pipeline, STORED[rollup]) == expected, rollup


async def _to_the_beginning(bootstrap: str, group: str, names: list[str]) -> None:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    async with consumer:
        tps = [TopicPartition(name, partition) for name in names for partition in range(2)]
        consumer.assign(tps)
        await consumer.commit({tp: OffsetAndMetadata(0, "") for tp in tps})


def replay_everything(pipeline: Pipeline) -> None:
    """Let a new sink read its topics from the beginning."""
    sink = pipeline.processes.pop("sink")
    sink.send_signal(signal.SIGTERM)
    assert sink.wait(30) == 0
    read = [topics.EVENTS, topics.DEAD_LETTER]
    asyncio.run(_to_the_beginning(pipeline.kafka_bootstrap, "eventpush-sink", read))
    pipeline.start_process("sink")


async def _produce(bootstrap: str, topic: str, key: str, value: bytes) -> None:
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait(topic, value, key.encode())


KILLED = """
import os, signal
from eventpush.erasure.rows import Rows
async def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)
Rows.{where} = killed
from eventpush.__main__ import main
main()
"""


def kill_at(pipeline: Pipeline, where: str, *arguments: str) -> None:
    """Run `eventpush erase` until it would call this method."""
    environ = clean_environ(pipeline.environ)
    command = [sys.executable, "-c", KILLED.format(where=where), "erase", *arguments]
    killed = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed


def test_an_erased_device_is_gone_and_does_not_come_back(pipeline: Pipeline, tmp_path: Path) -> None:
    """Killed in the middle and run again: nothing of it is left, other devices have all they had, rollups are exact."""
    registry = tmp_path / "fleet.csv"
    registry.write_text(f"imei,vehicle,fleet,driver\n{ERASED},V1,F,B. Das\n{KEPT},V2,F,C. Sen\n")
    assert pipeline.run("devices", "load", str(registry)).returncode == 0
    for imei in (ERASED, KEPT):
        for second in range(5):
            pipeline.post(event(imei, second))
        pipeline.post(event(imei, 0, Changes=999))  # a conflict
        pipeline.post(event(imei, 30, Device_Time=1719597133))  # a dead letter
        pipeline.post(event("12", 30, Location=f"near {imei}"))  # a dead letter that names it
    until(lambda: count(pipeline, ERASED) == (5, 3) or None, "the rows of the device")
    until(lambda: count(pipeline, KEPT) == (5, 3) or None, "the rows of the other device")
    check = run(pipeline, "--imei", ERASED, "--verify", status=1)
    assert check["erased_at"] is None
    assert {"ClickHouse telematics.events_store", f"Kafka {topics.RAW}", f"Kafka {topics.WINDOW}",
            f"Kafka {topics.LATEST}", f"Kafka {topics.DEVICES}"} <= set(found_in(check))  # fmt: skip

    kill_at(pipeline, "_mark_again", "--imei", ERASED)
    assert count(pipeline, ERASED) == (0, 0)
    certificate = run(pipeline, "--imei", ERASED)
    assert certificate["complete"]
    assert ERASED not in json.dumps(certificate)
    assert set(certificate["subject"]) == {"device"}
    assert certificate["gone_by"] > certificate["finished_at"] >= certificate["erased_at"]
    check_rollups(pipeline)
    check = run(pipeline, "--imei", ERASED, "--verify")
    assert found_in(check) == {}
    assert f"Kafka {topics.RAW}" in {store["store"] for store in check["waiting"]}
    assert count(pipeline, KEPT) == (5, 3)

    replay_everything(pipeline)
    for second in range(6, 9):
        pipeline.post(event(ERASED, second))
        pipeline.post(event(KEPT, second))
    pipeline.post(event(ERASED, 31, Device_Time=1719597134))
    account = settled(pipeline)
    assert account["total"]["erased"] == 4
    assert count(pipeline, ERASED) == (0, 0)
    assert pipeline.select(f"SELECT count() AS n FROM telematics.events WHERE imei = '{KEPT}'") == [{"n": 8}]
    letters = f"SELECT count() AS n FROM telematics.dead_letters WHERE payload LIKE '%{KEPT}%'"
    assert pipeline.select(letters) == [{"n": 3}]
    assert found_in(run(pipeline, "--imei", ERASED, "--verify")) == {}


def test_what_is_planted_is_found(pipeline: Pipeline) -> None:
    """A search finds a row in any table, declared or not, and a record on a topic, and says where; then none."""
    imei = "350612075195972"
    assert run(pipeline, "--imei", imei)["complete"]  # nothing to erase is no error
    # A refresh meanwhile would make a row of the mark, which is found too.
    pipeline.execute("SYSTEM STOP VIEW telematics.device_latest_refresh")
    pipeline.execute("CREATE TABLE telematics.notes (text Nullable(String)) ENGINE = MergeTree ORDER BY tuple()")
    pipeline.execute(f"INSERT INTO telematics.notes VALUES ('seen: {imei}.')")
    pipeline.execute(f"INSERT INTO telematics.rollup_marks (hour, imei) VALUES (0, '{imei}')")
    asyncio.run(_produce(pipeline.kafka_bootstrap, topics.LATEST, imei, b"{}"))
    asyncio.run(_produce(pipeline.kafka_bootstrap, topics.of_type("sos"), "any", b'{"imei":"%s"}' % imei.encode()))
    assert found_in(run(pipeline, "--imei", imei, "--verify", status=1)) == {
        "ClickHouse telematics.notes": 1,
        "ClickHouse telematics.rollup_marks": 1,
        f"Kafka {topics.LATEST}": 1,
        f"Kafka {topics.of_type('sos')}": 1,
    }
    pipeline.execute("DROP TABLE telematics.notes")
    pipeline.execute("SYSTEM START VIEW telematics.device_latest_refresh")


def test_an_erased_driver_is_in_no_row_and_no_registry(pipeline: Pipeline, tmp_path: Path) -> None:
    """Events that name the driver are gone, of any device; later events of the device come without the name."""
    registry = tmp_path / "fleet.csv"
    registry.write_text(f"imei,vehicle,fleet,driver\n{OTHER},V3,G,{DRIVER}\n")
    assert pipeline.run("devices", "load", str(registry)).returncode == 0
    pipeline.post(event(OTHER, 1))
    until(lambda: count(pipeline, OTHER)[0] or None, "a row")
    if pipeline.select(f"SELECT driver FROM telematics.events WHERE imei = '{OTHER}'") != [{"driver": DRIVER}]:
        pipeline.post(event(OTHER, 2))  # the worker had not read the registry yet
        until(lambda: count(pipeline, OTHER)[0] == 2 or None, "a second row")
    certificate = run(pipeline, "--driver", DRIVER)
    assert certificate["complete"]
    assert found_in(run(pipeline, "--driver", DRIVER, "--verify")) == {}
    named = f"SELECT count() AS n FROM telematics.events_store WHERE driver = '{DRIVER}'"
    assert pipeline.select(named) == [{"n": 0}]
    check_rollups(pipeline)
    assert pipeline.run("devices", "load", str(registry)).returncode == 0  # by mistake, once more
    pipeline.post(event(OTHER, 3))
    row = pipeline.row(f"imei = '{OTHER}' AND toSecond(device_time) = 3")
    assert (row["vehicle"], row["driver"]) == ("V3", None)
    check_rollups(pipeline, stores=False)


def test_every_table_with_personal_columns_is_declared(pipeline: Pipeline) -> None:
    """A table that gets such a column is declared in `schemas.personal_data`, so that an erasure reaches it."""
    columns = ", ".join(f"'{name}'" for name in PERSONAL_COLUMNS)
    found = pipeline.select(
        "SELECT DISTINCT concat(c.database, '.', c.table) AS name FROM system.columns AS c"
        " JOIN system.tables AS t ON t.database = c.database AND t.name = c.table"
        f" WHERE c.database = 'telematics' AND t.engine LIKE '%MergeTree' AND c.name IN ({columns})"
    )
    assert {row["name"] for row in found} <= {table.name for table in (*SOURCES, *DERIVED)}


@pytest.mark.parametrize(("key", "says"), [(None, "EVENTPUSH_ERASURE_KEY is not set"), ("another-key-of-16", "key")])
def test_without_the_key_nothing_runs(pipeline: Pipeline, tmp_path: Path, key: str | None, says: str) -> None:
    """Commands and a sink that cannot read the deny list end with one line that names the setting, and no traceback."""
    (port,) = preflight.free_ports(1)
    environ = {name: value for name, value in pipeline.environ.items() if "ERASURE" not in name}
    environ |= {"EVENTPUSH_DATA_DIR": str(tmp_path), "EVENTPUSH_SINK_APP_ID": "keyless"}
    environ |= {"EVENTPUSH_SINK_METRICS_PORT": str(port)} | ({"EVENTPUSH_ERASURE_KEY": key} if key else {})
    for command in (["erase", "--imei", ERASED], ["account"], ["sink"]):
        ended = subprocess.run(
            [sys.executable, "-m", "eventpush", *command],
            env=clean_environ(environ), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == 1
        (line,) = [line for line in (ended.stdout + ended.stderr).splitlines() if "ERASURE_KEY" in line]
        assert says in line
        assert "Traceback" not in ended.stdout + ended.stderr
