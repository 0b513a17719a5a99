"""`eventpush check` on the real stack: it names each fault and its remedy, and the remedy works."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from aiokafka.structs import TopicPartition

from schemas import topics
from tests.integration.pipeline_support import Pipeline, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.stack import ClickHouse, Kafka

AUTHORIZER = (
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("allow.everyone.if.no.acl.found", "true"),
)
_TOPIC, _LITERAL, _READ, _ALLOW = 2, 3, 3, 3  # Kafka's ResourceType, PatternType, AclOperation, AclPermissionType


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline whose Kafka has an authorizer; it is meddled with."""
    home = tmp_path_factory.mktemp("checks")
    kafka, clickhouse = Kafka.at(home / "kafka", overrides=AUTHORIZER), ClickHouse(home / "clickhouse")
    running = Pipeline(kafka.bootstrap, clickhouse.url, home)
    try:
        kafka.start()
        clickhouse.start()
        running.start()
        yield running
    finally:
        running.kill()
        kafka.end_if_running()
        clickhouse.end_if_running()


def finding(pipeline: Pipeline, check: str) -> tuple[str, str]:
    """State and detail of one check."""
    (found,) = [f for f in json.loads(pipeline.run("check", "--json").stdout) if f["check"] == check]
    return found["state"], found["detail"]


async def _move(pipeline: Pipeline, group: str, topic: str, to: dict[int, int] | None) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=pipeline.kafka_bootstrap, group_id=group)
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for partition in range(4)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        await consumer.commit(ends if to is None else {TopicPartition(topic, p): at for p, at in to.items()})
    finally:
        await consumer.stop()


@pytest.mark.parametrize(
    ("service", "group", "topic"),
    [("streams", "eventpush-streams", topics.RAW), ("sink", "eventpush-sink", topics.EVENTS)],
    ids=["streams", "sink"],
)
def test_a_group_that_somebody_reset(pipeline: Pipeline, service: str, group: str, topic: str) -> None:
    """Moved to the end while its worker was down, it would skip events: found, and put right as the check says."""
    receipts = [pipeline.post(SAMPLE | {"IMEI": f"35061207800000{n}", "Event": f"{service} first"}) for n in range(8)]
    settled(pipeline)
    assert finding(pipeline, "groups")[0] == "ok"
    process = pipeline.processes.pop(service)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    receipts += [pipeline.post(SAMPLE | {"IMEI": f"35061207800000{n}", "Event": f"{service} then"}) for n in range(8)]
    if service == "sink":
        until(lambda: in_flight(pipeline) == {"streams": 0, "sink": 8} or None, "8 events wait for the sink")
    asyncio.run(_move(pipeline, group, topic, None))
    state, detail = finding(pipeline, "groups")
    assert state == "failed"
    assert f"group {group} skips offsets" in detail
    while state == "failed":  # one partition after another, as a person would
        where = detail.partition("--topic ")[2].partition(" ")[0]
        offset = detail.partition("--to-offset ")[2].partition(" ")[0]
        asyncio.run(_move(pipeline, group, topic, {int(where.partition(":")[2]): int(offset)}))
        state, detail = finding(pipeline, "groups")
    pipeline.start_process(service)
    for receipt in receipts:
        pipeline.row(f"receipt_id = '{receipt}'")
    settled(pipeline)


def in_flight(pipeline: Pipeline) -> dict[str, int]:
    """What waits for which stage, by the account."""
    found: dict[str, int] = json.loads(pipeline.run("account", "--json").stdout)["in_flight"]
    return found


def test_a_topic_with_other_settings(pipeline: Pipeline) -> None:
    """The topic, the setting with both values, and the command for settings that `eventpush topics` does not alter."""
    pipeline.environ["EVENTPUSH_TOPIC_RETENTION_H"] = "48"
    state, detail = finding(pipeline, "topics")
    assert state == "warning"
    assert "retention.ms is 604800000, wanted 172800000" in detail
    assert re.search(r"`eventpush topics` sets [a-z., ]*retention\.ms", detail)
    assert pipeline.run("topics").returncode == 0
    assert finding(pipeline, "topics")[0] == "ok"


def test_a_column_that_somebody_dropped(pipeline: Pipeline) -> None:
    """The column is named; with the steps taken again, all is well."""
    alter = "ALTER TABLE telematics.dead_letters_store DROP COLUMN attempt SETTINGS mutations_sync = 2"
    pipeline.execute(alter)
    state, detail = finding(pipeline, "schema")
    assert state == "failed"
    assert "telematics.dead_letters_store.attempt missing" in detail
    pipeline.execute("ALTER TABLE telematics.schema_migrations DELETE WHERE 1 SETTINGS mutations_sync = 2")
    assert pipeline.run("migrate").returncode == 0
    assert finding(pipeline, "schema")[0] == "ok"


async def _grant_to_another(bootstrap: str) -> None:
    """Allow another user to read the raw topic: from then on, everyone else needs an ACL."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        request = CreateAclsRequest(_TOPIC, topics.RAW, _LITERAL, "User:other", "*", _READ, _ALLOW)
        await admin._send_to_controller(request)  # aiokafka has the request, and no method for it
    finally:
        await admin.close()


def test_an_acl_that_is_missing(pipeline: Pipeline) -> None:
    """The user, the topic, and the command that adds it."""
    assert finding(pipeline, "access")[0] == "ok"
    asyncio.run(_grant_to_another(pipeline.kafka_bootstrap))
    until(lambda: finding(pipeline, "access")[0] == "failed" or None, "the ACL takes effect")
    _, detail = finding(pipeline, "access")
    assert "User:ANONYMOUS may not use topic telematics.raw.v1" in detail
    assert "kafka-acls.sh" in detail
