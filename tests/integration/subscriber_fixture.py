"""Kafka, ingress and stream worker without ClickHouse: what subscribers need."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from embedded import preflight
from schemas import times
from schemas.event_types import canonical
from schemas.identity import digest_of, uuid_text
from schemas.sent_schema import example
from tests.integration.pipeline_support import eventpush, until
from tests.integration.quiet import assert_quiet
from tests.sse_reader import TOKEN
from tests.stack import ROOT, Kafka

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Publisher:
    """The part of the pipeline before the topics, as processes of their own."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        ports = preflight.free_ports(4)
        names = ("INGRESS_PORT", "INGRESS_METRICS_PORT", "STREAMS_METRICS_PORT", "SSE_PORT")
        self.bootstrap = bootstrap
        self.environ = {f"EVENTPUSH_{name}": str(port) for name, port in zip(names, ports, strict=True)}
        self.environ |= {"EVENTPUSH_KAFKA_BOOTSTRAP": bootstrap, "EVENTPUSH_DATA_DIR": str(home / "data")}
        self.home, self._ports = home, ports[:3]
        self.stream_port = ports[3]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with these settings."""
        return eventpush(self.environ, *arguments)

    def start(self) -> None:
        """Make the topics, start both and wait until they are ready."""
        assert self.run("topics").returncode == 0
        for name in ("streams", "ingress"):
            self._spawn(name)
        for port in self._ports[1:]:
            until(partial(_answers, f"http://127.0.0.1:{port}/readyz"), f"ready (logs in {self.home})")

    def _spawn(self, name: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EVENTPUSH_")}
        with (self.home / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "eventpush", name]
            self._processes[name] = subprocess.Popen(
                command, env=environ | self.environ, cwd=ROOT, stdout=log, stderr=log
            )

    def start_event_stream(self) -> None:
        """Start the event stream too, with a token for the tests and little patience."""
        self.environ |= {"EVENTPUSH_SSE_TOKENS": f"tests {TOKEN}", "EVENTPUSH_SSE_SEND_TIMEOUT_S": "2"}
        self._spawn("sse")
        until(partial(_answers, f"http://127.0.0.1:{self.stream_port}/readyz"), f"ready (logs in {self.home})")

    def stop_event_stream(self) -> None:
        """End the event stream in good order."""
        self._processes["sse"].terminate()
        assert self._processes.pop("sse").wait(30) == 0

    def replace_streams(self) -> None:
        """Kill the stream worker and start another, without waiting."""
        self._processes["streams"].kill()
        self._processes["streams"].wait()
        self._spawn("streams")

    def stop(self) -> None:
        """End both in good order."""
        for process in self._processes.values():
            process.terminate()
        for name, process in self._processes.items():
            assert process.wait(30) == 0, name
            assert_quiet(self.home / f"{name}.log", allowed="client is disconnected")

    def end(self) -> None:
        """End both, surely."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def end_offsets(self, topic: str) -> dict[int, int] | None:
        """The offset after the last record that a subscriber sees, by partition; None before there is one."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "offsets"})
        try:
            described = consumer.list_topics(timeout=30).topics.get(topic)
            partitions = [confluent_kafka.TopicPartition(topic, p) for p in (described.partitions if described else ())]
            ends = {tp.partition: _end_offset(consumer, tp) for tp in partitions}
        finally:
            consumer.close()
        return ends if any(ends.values()) else None

    def records(self, topic: str) -> list[Any]:
        """All committed records, a partition's in order."""
        ends = self.end_offsets(topic) or {}
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "none", "enable.partition.eof": True}
        )
        first = confluent_kafka.OFFSET_BEGINNING
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, first) for partition in ends])
        return _read_to_end(consumer, set(ends))

    def wait_for_records(self, topic: str) -> list[Any]:
        """All committed records, as soon as there is one."""
        return until(lambda: self.records(topic) or None, f"records of {topic}")

    def uncommitted(self, group: str, topic: str) -> int:
        """The records that the group would read again or has not read."""
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
             "enable.auto.commit": False, "enable.partition.eof": True}
        )  # fmt: skip
        consumer.subscribe([topic])
        return len(_read_to_end(consumer, set(self.end_offsets(topic) or {})))

    def post(self, *events: dict[str, Any], **headers: str) -> None:
        """Send events in one request."""
        body = json.dumps(events).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[0]}/api/events", body, {"Content-Type": "application/json", **headers}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            assert answer.status == 200


def _end_offset(consumer: confluent_kafka.Consumer, partition: confluent_kafka.TopicPartition) -> int:
    """The offset after the last committed record; waits until the broker leads the partition of a new topic."""

    def asked() -> int | None:
        try:
            return consumer.get_watermark_offsets(partition, timeout=30)[1]
        except confluent_kafka.KafkaException as error:
            if error.args[0].code() != confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION:
                raise
            return None

    return until(asked, f"a leader of {partition}")


def _read_to_end(consumer: confluent_kafka.Consumer, partitions: set[int]) -> list[Any]:
    """The records from where the consumer stands to the end of each partition; closes the consumer."""
    found, ended = list[Any](), set[int]()
    try:
        while ended < partitions:
            record = consumer.poll(60)
            assert record is not None, "no answer from Kafka"
            if error := record.error():
                assert error.code() == confluent_kafka.KafkaError._PARTITION_EOF, error
                ended |= {record.partition() or 0}
            else:
                found.append(record)
    finally:
        consumer.close()
    return found


def events_of_type(event: str, count: int) -> list[dict[str, Any]]:
    """As many different events of a type, of 50 devices, of the last minutes."""
    now_s = int(time.time())
    return [
        example("sos")
        | {
            "Event": event,
            "IMEI": f"{350612075195000 + n % 50:015d}",
            "Device_Time": _sent_time(now_s - n),
            "Server_Time": _sent_time(now_s),
        }
        for n in range(count)
    ]


def event_id(sent: dict[str, Any]) -> str:
    """The id of the event that is published for what was sent."""
    identity = sent["IMEI"], times.parse(sent["Device_Time"]), canonical(sent["Event"]), sent["Geofence_Name"]
    return uuid_text(digest_of(*identity))


def _sent_time(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + ".000000+0000"


def _answers(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
            return answer.status == 200 or None
    except OSError:
        return None


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    """A publisher with a Kafka of its own, so that the tests can count."""
    home = tmp_path_factory.mktemp("publisher")
    kafka = Kafka.at(home / "kafka")
    running = Publisher(kafka.bootstrap, home)
    try:
        kafka.start()
        running.start()
        yield running
        running.stop()
    finally:
        running.end()
        kafka.end_if_running()


def lines_of(command: Sequence[str], timeout_s: float = 60) -> list[str]:
    """The lines that a command prints until it ends well."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()
