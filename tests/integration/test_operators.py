"""Operators' commands on the real stack: find any event, repair dead letters, load files."""

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from schemas import topics
from tests.integration.pipeline_support import Pipeline, clean_environ, own_pipeline, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.stack import ROOT

SOS: dict[str, Any] = SAMPLE | {"Event": "sos", "Changes": 1}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with a Kafka and a ClickHouse of its own: a test deletes records."""
    with own_pipeline(tmp_path_factory.mktemp("operators")) as running:
        yield running


def sos(second: int, **fields: Any) -> dict[str, Any]:
    """An SOS at another second, so that it is another event."""
    return SOS | {"Device_Time": f"2024-06-28T02:14:{second:02d}.000000+0000"} | fields


def traces(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    """What `eventpush trace --json` finds."""
    result = pipeline.run("trace", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def traced(pipeline: Pipeline, receipt: str) -> dict[str, Any]:
    """The trace of the one event of a request, once it has a row."""

    def stored() -> dict[str, Any] | None:
        (found,) = traces(pipeline, receipt)
        return found if any(stage["stage"] == "row" for stage in found["stages"]) else None

    return until(stored, f"a row of {receipt}")


def test_a_trace_names_every_stage_of_an_event(pipeline: Pipeline) -> None:
    """By receipt, by event_id, and by device and time: the same raw record, its messages, its row, in order of time."""
    receipt = pipeline.post(sos(1))
    found = traced(pipeline, receipt)
    assert (found["outcome"], found["event"], found["receipt_id"]) == ("event", "sos", receipt)
    assert found["size_bytes"] == len(json.dumps(sos(1)))
    assert [at["topic"] for at in found["published"]] == [topics.EVENTS, topics.of_type("sos")]
    times = [stage["at"] for stage in found["stages"] if stage["at"]]
    assert len(times) == 3  # request, outcome, row
    assert times == sorted(times)
    assert traces(pipeline, found["event_id"]) == [found]
    at_that_time = traces(pipeline, "--imei", SOS["IMEI"], "--around", "2024-06-28T02:14:01Z", "--within", "1")
    assert [of_one["raw"] for of_one in at_that_time] == [found["raw"]]


def test_a_trace_distinguishes_duplicates_conflicts_and_dead_letters(pipeline: Pipeline) -> None:
    """A repeat names the event that it repeats, a conflict the event that it contradicts, a dead letter its reasons."""
    first = traced(pipeline, pipeline.post(sos(2)))
    settled(pipeline)
    conflict = traced(pipeline, pipeline.post(sos(2, Changes=2)))
    assert conflict["outcome"] == "conflict"
    assert first["event_id"] in conflict["stages"][2]["detail"]
    receipt = pipeline.post(sos(2))
    settled(pipeline)
    (duplicate,) = traces(pipeline, receipt)
    assert duplicate["outcome"] == "duplicate"
    assert f"offset {first['raw']['offset']}" in duplicate["summary"]
    letter = traced(pipeline, pipeline.post(sos(3, Device_Time="yesterday", IMEI="12")))
    assert letter["outcome"] == "dead_letter"
    assert {(reason["field"], reason["code"]) for reason in letter["reasons"]} == {
        ("Device_Time", "bad_format"),
        ("IMEI", "bad_format"),
    }
    assert traces(pipeline, letter["dead_letter_id"])[0]["raw"] == letter["raw"]


def test_a_trace_of_nothing_says_what_was_searched(pipeline: Pipeline) -> None:
    """A receipt that never was is an error that names where was searched."""
    result = pipeline.run("trace", "000000000000-1")
    assert result.returncode == 1
    assert "no trace of 000000000000-1" in result.stderr
    assert topics.RAW in result.stderr


def test_a_killed_backfill_loses_and_doubles_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Events of a file take the way of a webhook: after kill -9 and a second run each is one row, and all add up."""
    events = [SAMPLE | {"IMEI": f"{350612076000000 + number}"} for number in range(1_500)]
    path = tmp_path / "history.ndjson.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, [*events, SAMPLE | {"IMEI": "12"}, "no event"])).encode()))
    before = settled(pipeline)
    stored = "SELECT uniqExact(imei) AS devices, count() AS events FROM telematics.events WHERE imei LIKE '350612076%'"
    killed = subprocess.Popen(
        [sys.executable, "-m", "eventpush", "backfill", str(path), "--rate", "1000"],
        env=clean_environ(pipeline.environ), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: pipeline.select(stored)[0]["events"] >= 200 or None, "200 events of the file")
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    settled(pipeline)
    result = pipeline.run("backfill", str(path), "--rate", "100000", "--json")
    assert result.returncode == 1, result  # one was refused
    (report,) = json.loads(result.stdout)
    assert (report["accepted"], report["refused"]) == (1_501, 1)
    assert 0 < report["sent"] < 1_502
    after = settled(pipeline)
    assert pipeline.select(stored) == [{"devices": 1_500, "events": 1_500}]
    assert after["total"]["stored_dead_letters"] == before["total"]["stored_dead_letters"] + 1
    assert (
        after["accepted"] - before["accepted"] - (after["total"]["duplicate"] - before["total"]["duplicate"]) == 1_501
    )


async def _delete_records(bootstrap: str) -> None:
    """Delete all records of every topic that holds events."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics()
        tps = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
            if topic["topic"].startswith("telematics.") and topic["topic"] not in {topics.DEVICES, topics.WINDOW}
        ]
        await admin.delete_records({tp: RecordsToDelete(before_offset=-1) for tp in tps})
    finally:
        await admin.close()


def test_what_kafka_has_deleted_is_traced_from_clickhouse(pipeline: Pipeline) -> None:
    """After the topics' retention the row still answers, and the trace says that Kafka has nothing left."""
    before = traced(pipeline, pipeline.post(sos(50)))
    settled(pipeline)
    asyncio.run(_delete_records(pipeline.kafka_bootstrap))
    (after,) = traces(pipeline, before["receipt_id"])
    assert (after["outcome"], after["raw"], after["event_id"]) == ("event", before["raw"], before["event_id"])
    assert (after["sender"], after["size_bytes"], after["published"]) == (None, None, [])
    assert any("ClickHouse alone" in note for note in after["notes"])
