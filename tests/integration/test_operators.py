"""Operators' commands on the real stack: repair dead letters, load files, find any event."""

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
from tests.integration.pipeline_support import Pipeline, clean_environ, own_pipeline, post, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.stack import ROOT

SOS: dict[str, Any] = SAMPLE | {"Event": "sos", "Changes": 1}
SENDERS = ("fleet-a", "fleet-b", "fleet-c", "fleet-d", "fleet-e", "fleet-f")
LETTERS = 250  # more than a page of a replay


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with a Kafka and a ClickHouse of its own: tests count, and one deletes records. Senders have names."""
    tokens = ",".join(f"{name} token-of-{name}" for name in SENDERS)
    with own_pipeline(tmp_path_factory.mktemp("operators"), EVENTPUSH_INGRESS_TOKENS=tokens) as running:
        running.headers = {"Authorization": "Bearer token-of-fleet-f"}
        yield running


# --- dead letters --------------------------------------------------------------------------------------------------


def wrong_times(sender: str, count: int) -> list[dict[str, Any]]:
    """Events of a sender that writes its times as seconds since the epoch."""
    device = f"35061207519{SENDERS.index(sender)}"
    return [
        SAMPLE | {"IMEI": f"{device}{number:03d}", "Device_Time": 1719597133 + number, "Server_Time": 1719600585}
        for number in range(count)
    ]


def send(pipeline: Pipeline, sender: str, events: list[dict[str, Any]]) -> None:
    """Post the events in one request, and wait until they are dead letters in ClickHouse."""
    headers = {"Authorization": f"Bearer token-of-{sender}", "Content-Type": "application/json"}
    post(pipeline.url, json.dumps(events).encode(), headers)
    query = f"SELECT count() AS letters FROM telematics.dead_letters WHERE sender = '{sender}' AND attempt = 0"
    until(
        lambda: pipeline.select(query) == [{"letters": len(events)}] or None, f"{len(events)} dead letters of {sender}"
    )


def dead_letters(pipeline: Pipeline, *arguments: str, status: int = 0) -> dict[str, Any]:
    """What `eventpush dead-letters … --json` prints."""
    result = pipeline.run("dead-letters", *arguments, "--json")
    assert result.returncode == status, result
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def events_of(pipeline: Pipeline, sender: str) -> list[dict[str, Any]]:
    """The sender's rows."""
    columns = "toString(event_id) AS event_id, imei, device_time, received_at, receipt_id"
    return pipeline.select(f"SELECT {columns} FROM telematics.events WHERE sender = '{sender}' ORDER BY imei")


def test_a_hundred_letters_with_the_wrong_time_format_become_events(pipeline: Pipeline) -> None:
    """Counted, shown, tried, replayed: each keeps its arrival and receipt, and the account counts them apart."""
    send(pipeline, "fleet-b", wrong_times("fleet-b", 100))
    before = settled(pipeline)
    groups = dead_letters(pipeline, "list", "--sender", "fleet-b", "--field", "Device_Time", "--by", "sender")["groups"]
    assert [(group["by"], group["letters"]) for group in groups] == [({"sender": "fleet-b"}, 100)]
    shown = pipeline.run("dead-letters", "show", groups[0]["example"]).stdout
    assert '"Device_Time": 171959' in shown
    assert "^ wrong_type" in shown

    repair = ("--sender", "fleet-b", "--cast", "Device_Time", "--cast", "Server_Time")
    dry = dead_letters(pipeline, "replay", *repair, "--dry-run")
    assert dry["results"] == {"valid": 100}
    times = {json.loads(letter["after"])["Device_Time"] for letter in dry["dead_letters"]}
    assert min(times) == "2024-06-28T17:52:13.000000+0000"
    assert events_of(pipeline, "fleet-b") == []  # a dry run sends nothing

    replayed = dead_letters(pipeline, "replay", *repair)
    assert replayed["counts"] == {
        "selected": 100, "sent": 100, "events": 100, "dead_letters": 0, "left_out": 0, "waiting": 0,
    }  # fmt: skip
    letters = pipeline.select(
        "SELECT toString(resolved_by_event_id) AS event_id, JSONExtractString(payload, 'IMEI') AS imei, received_at,"
        " receipt_id FROM telematics.dead_letters WHERE sender = 'fleet-b' ORDER BY imei"
    )
    events = events_of(pipeline, "fleet-b")
    assert [{name: event[name] for name in letters[0]} for event in events] == letters
    after = settled(pipeline)
    assert (after["accepted"], after["replayed"]) == (before["accepted"], before["replayed"] + 100)
    assert after["total"]["stored"] == before["total"]["stored"] + 100
    (audit,) = pipeline.select(
        f"SELECT started_by, selection, repair, finished_at, events FROM telematics.replays"
        f" WHERE replay_id = '{replayed['replay_id']}'"
    )
    assert json.loads(audit["selection"]) == {"senders": ["fleet-b"]}
    assert json.loads(audit["repair"]) == {"casts": ["Device_Time", "Server_Time"]}
    assert "@" in audit["started_by"]
    assert audit["finished_at"] is not None
    assert audit["events"] == 100


def test_a_second_replay_is_harmless(pipeline: Pipeline) -> None:
    """What is resolved is not selected; asked for by id, it is dropped as a duplicate of its event."""
    send(pipeline, "fleet-a", wrong_times("fleet-a", 1))
    (letter,) = pipeline.select(
        "SELECT toString(dead_letter_id) AS id FROM telematics.dead_letters WHERE sender = 'fleet-a'"
    )
    casts = ("--cast", "Device_Time", "--cast", "Server_Time")
    dead_letters(pipeline, "replay", "--sender", "fleet-a", *casts)
    (event,) = events_of(pipeline, "fleet-a")
    before = settled(pipeline)
    assert dead_letters(pipeline, "replay", "--sender", "fleet-a", *casts)["counts"]["selected"] == 0
    assert dead_letters(pipeline, "replay", "--id", letter["id"], *casts)["counts"]["events"] == 1
    assert events_of(pipeline, "fleet-a") == [event]
    after = settled(pipeline)
    assert after["total"]["duplicate"] == before["total"]["duplicate"] + 1
    assert after["replayed"] == before["replayed"] + 1


def test_what_fails_again_is_a_dead_letter_of_the_next_attempt(pipeline: Pipeline) -> None:
    """It takes the first one's place among the open letters, and nothing replays it by itself."""
    send(pipeline, "fleet-c", wrong_times("fleet-c", 1))
    repair = ("--cast", "Device_Time")
    again = dead_letters(pipeline, "replay", "--sender", "fleet-c", *repair, status=1)
    assert again["counts"]["dead_letters"] == 1
    settled(pipeline)
    letters = pipeline.select(
        "SELECT toString(dead_letter_id) AS id, toString(replay_of) AS replay_of, attempt, received_at,"
        " reasons.field AS fields FROM telematics.dead_letters WHERE sender = 'fleet-c' ORDER BY attempt"
    )
    assert [letter["attempt"] for letter in letters] == [0, 1]
    assert (letters[1]["replay_of"], letters[1]["received_at"]) == (letters[0]["id"], letters[0]["received_at"])
    assert letters[1]["fields"] == ["Server_Time"]
    (group,) = dead_letters(pipeline, "list", "--sender", "fleet-c", "--by", "sender")["groups"]
    assert (group["letters"], group["example"]) == (1, letters[1]["id"])
    assert dead_letters(pipeline, "replay", "--sender", "fleet-c", "--cast", "Server_Time")["counts"]["events"] == 1
    settled(pipeline)


#: The process ends with SIGKILL where it hurts most: a page is in Kafka and not recorded, or between two pages.
KILLED_BEFORE_THE_RECORD = """
import os, signal
from eventpush.dead_letters import audit
audit.record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from eventpush.__main__ import main
main()
"""
KILLED_IN_THE_SECOND_PAGE = """
import os, signal, itertools
from eventpush.dead_letters import audit
record, pages = audit.record, itertools.count(1)
async def counted(*arguments):
    next(pages) == 1 or os.kill(os.getpid(), signal.SIGKILL)
    await record(*arguments)
audit.record = counted
from eventpush.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("sender", "program"),
    [("fleet-d", KILLED_BEFORE_THE_RECORD), ("fleet-e", KILLED_IN_THE_SECOND_PAGE)],
    ids=["before the record", "in the second page"],
)
def test_a_killed_replay_continues(pipeline: Pipeline, tmp_path: Path, sender: str, program: str) -> None:
    """Nothing is doubled or left out, what failed meanwhile is not picked up, and the account closes throughout."""
    send(pipeline, sender, wrong_times(sender, LETTERS))
    script = tmp_path / "repair.py"
    script.write_text(
        "from datetime import UTC, datetime\n"
        "def text(seconds):\n"
        "    return datetime.fromtimestamp(seconds, UTC).strftime('%Y-%m-%dT%H:%M:%S.%f+0000')\n"
        "def times(event):\n"
        "    broken = event['IMEI'].endswith('7')\n"
        "    return event | {n: event[n] if broken else text(event[n]) for n in ('Device_Time', 'Server_Time')}\n"
    )
    arguments = ["dead-letters", "replay", "--sender", sender, "--with", f"{script}:times"]
    killed = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=clean_environ(pipeline.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -9, killed
    settled(pipeline)  # also with half of a replay
    replay_id = killed.stderr.split()[1]
    broken = LETTERS // 10
    continued = dead_letters(pipeline, "replay", "--continue", replay_id, status=1)
    assert continued["counts"] == {
        "selected": LETTERS, "sent": LETTERS, "events": LETTERS - broken, "dead_letters": broken, "left_out": 0,
        "waiting": 0,
    }  # fmt: skip
    settled(pipeline)
    assert len(events_of(pipeline, sender)) == LETTERS - broken
    by_attempt = (
        f"SELECT attempt, count() AS letters FROM telematics.dead_letters WHERE sender = '{sender}' GROUP BY attempt"
    )
    assert {row["attempt"]: row["letters"] for row in pipeline.select(by_attempt)} == {0: LETTERS, 1: broken}
    assert dead_letters(pipeline, "replay", "--continue", replay_id, status=1)["counts"] == continued["counts"]


# --- backfill ---------------------------------------------------------------------------------------------------------


def test_a_killed_backfill_loses_and_doubles_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Events of a file take the way of a webhook: after kill -9 and a second run each is one row, and all add up."""
    events = [SAMPLE | {"IMEI": f"{350612076000000 + number}"} for number in range(1_500)]
    path = tmp_path / "history.ndjson.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, [*events, SAMPLE | {"IMEI": "12"}, "no event"])).encode()))
    before = settled(pipeline)
    stored = "SELECT uniqExact(imei) AS devices, count() AS events FROM telematics.events WHERE imei LIKE '350612076%'"
    token = tmp_path / "token"
    token.write_text("token-of-fleet-f\n")
    sent = ["backfill", str(path), "--token-file", str(token)]
    killed = subprocess.Popen(
        [sys.executable, "-m", "eventpush", *sent, "--rate", "300"],
        env=clean_environ(pipeline.environ), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: pipeline.select(stored)[0]["events"] >= 200 or None, "200 events of the file")
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    settled(pipeline)
    result = pipeline.run(*sent, "--rate", "100000", "--json")
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


# --- trace ------------------------------------------------------------------------------------------------------------


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


async def _delete_records(bootstrap: str) -> None:
    """Delete all records that retention removes from the topics of events; Kafka compacts the other topics."""
    kept = {topic.name for topic in topics.FIXED if topic.compacted or topic.window_retention}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics()
        tps = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
            if topic["topic"].startswith("telematics.") and topic["topic"] not in kept
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
