"""The restore drill of `docs/backup.md`: what comes back after ClickHouse or Kafka is lost, and what does not."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pipeline_support import Pipeline, until
from tests.integration.test_erasure import check_rollups, event
from tests.integration.test_pipeline import settled
from tests.stack import ClickHouse, Kafka

ERASED, KEPT = "350612075195931", "350612075195949"
EVENTS = "SELECT * EXCEPT (inserted_at) FROM telematics.events ORDER BY event_id"
LETTERS = "SELECT * EXCEPT (inserted_at) FROM telematics.dead_letters ORDER BY dead_letter_id"


@dataclass
class Site:
    """A pipeline whose stores can be lost."""

    home: Path
    kafka: Kafka
    clickhouse: ClickHouse
    pipeline: Pipeline

    def lose_clickhouse(self) -> None:
        """Its directory is gone, and an empty ClickHouse starts."""
        self.clickhouse.end_if_running()
        shutil.rmtree(self.home / "clickhouse")
        self.clickhouse.start()

    def lose_kafka(self) -> None:
        """Its directory is gone, and an empty Kafka starts."""
        self.kafka.end_if_running()
        shutil.rmtree(self.home / "kafka")
        self.kafka.start()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site with events of two devices, dead letters, and a registry; one device is erased."""
    home = tmp_path_factory.mktemp("restore")
    kafka, clickhouse = Kafka.at(home / "kafka"), ClickHouse(home / "clickhouse")
    running = Pipeline(kafka.bootstrap, clickhouse.url, home)
    running.environ |= {"EVENTPUSH_ERASURE_KEY": "a-key-of-the-deny-list", "EVENTPUSH_TOPIC_PARTITIONS": "2"}
    try:
        kafka.start()
        clickhouse.start()
        running.start()
        (home / "fleet.csv").write_text(f"imei,vehicle,fleet,driver\n{KEPT},V2,F,C. Sen\n")
        assert running.run("devices", "load", str(home / "fleet.csv")).returncode == 0
        for second in range(20):
            running.post(event(KEPT, second))
            running.post(event(ERASED, second))
        running.post(event(KEPT, 30, Device_Time=5))
        settled(running)
        yield Site(home, kafka, clickhouse, running)
        running.stop()
    finally:
        running.kill()
        kafka.end_if_running()
        clickhouse.end_if_running()


def run(site: Site, *arguments: str) -> dict[str, Any]:
    """What `eventpush erase` prints."""
    result = site.pipeline.run("erase", *arguments)
    assert result.returncode == 0, result
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_lost_clickhouse_is_rebuilt_from_a_backup_and_the_topics(site: Site) -> None:
    """Every event and dead letter is back, once, also where both have it; an erased device is not, though the backup is
    older than its erasure; rollups are exact and the account adds up.
    """  # fmt: skip
    pipeline = site.pipeline
    backup = pipeline.execute("SELECT * FROM telematics.events_store FORMAT Native")
    (site.home / "certificate.json").write_text(json.dumps(run(site, "--imei", ERASED)))
    events, letters = pipeline.select(EVENTS), pipeline.select(LETTERS)
    assert (len(events), len(letters)) == (20, 1)
    pipeline.stop()

    site.lose_clickhouse()
    assert pipeline.run("migrate").returncode == 0
    pipeline.insert("telematics.events_store", backup)
    for columns, values in (("hour", "toStartOfHour(device_time)"), ("hour, imei", "0, imei")):
        pipeline.execute(
            f"INSERT INTO telematics.rollup_marks ({columns}) SELECT DISTINCT {values} FROM telematics.events_store"
        )
    assert pipeline.select("SELECT uniqExact(imei) AS devices FROM telematics.events") == [{"devices": 2}]
    assert run(site, "--after-restore")["put_back"] == 0
    pipeline.environ["EVENTPUSH_SINK_APP_ID"] = "eventpush-sink-restored"  # a new group begins at the beginning
    pipeline.start()
    until(lambda: pipeline.select(LETTERS) == letters or None, "the dead letters")
    settled(pipeline)
    assert pipeline.select(EVENTS) == events
    until(lambda: rollups_are_exact(pipeline) or None, "the rollups")


def rollups_are_exact(pipeline: Pipeline) -> bool:
    """Whether the stores of the rollups have caught up: once a minute."""
    try:
        check_rollups(pipeline)
    except AssertionError:
        return False
    return True


def test_after_a_lost_kafka_rows_repeats_and_the_deny_list_are_as_before(site: Site) -> None:
    """Rows stay; the registry is loaded again; the deny list comes from certificates; a repeat, which the new window
    does not know, is still one row; what comes is stored and accounted for.
    """  # fmt: skip
    pipeline = site.pipeline
    events = pipeline.select(EVENTS)
    pipeline.stop()

    site.lose_kafka()
    assert pipeline.run("topics").returncode == 0
    pipeline.execute("TRUNCATE TABLE telematics.devices_store")
    restored = run(site, "--after-restore", str(site.home / "certificate.json"))
    assert (restored["put_back"], restored["entries"]) == (1, 1)
    pipeline.start()
    pipeline.post(event(KEPT, 0))  # a repeat
    pipeline.post(event(ERASED, 21))
    pipeline.post(event(KEPT, 40))
    new = pipeline.row("toSecond(device_time) = 40")
    account = settled(pipeline)
    assert (account["accepted"], account["total"]["erased"]) == (3, 1)
    assert len(pipeline.select(EVENTS)) == len(events) + 1
    assert (new["imei"], new["driver"]) == (KEPT, None)  # the registry was lost
    assert pipeline.run("devices", "load", str(site.home / "fleet.csv")).returncode == 0
    later = iter(range(41, 60))

    def registered() -> bool | None:
        second = next(later)
        pipeline.post(event(KEPT, second))
        return pipeline.row(f"toSecond(device_time) = {second}")["driver"] == "C. Sen" or None

    until(registered, "an event with its driver")
