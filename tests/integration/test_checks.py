"""`eventpush check` on the real stack: it names each fault and its remedy, and the remedy works."""

import asyncio
import json
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from eventpush.checking import access
from eventpush.contract.acls import SERVICES, Right, of_a_service
from runtime.adapters import aiokafka_admin
from runtime.adapters.aiokafka_admin import LogDir
from runtime.kafka import topic_admin
from runtime.platform.settings import Settings, load
from schemas import topics
from tests.integration.pipeline_support import Pipeline, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.stack import ClickHouse, Kafka

AUTHORIZER = (
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("allow.everyone.if.no.acl.found", "true"),
)
ME = "User:ANONYMOUS"


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
    # An automatic commit, when it stops, would put the group back to where the consumer began.
    consumer = AIOKafkaConsumer(bootstrap_servers=pipeline.kafka_bootstrap, group_id=group, enable_auto_commit=False)
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


def acl(resource: str, name: str, operation: str, *, user: str = ME, prefixed: bool = False) -> AclBinding:
    """An allowance, in the words of `kafka-acls.sh`."""
    return AclBinding(
        ResourceType[resource.upper().replace("-", "_")],
        name, ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL, user, "*",
        AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()], AclPermissionType.ALLOW,
    )  # fmt: skip


def granted_by(command: str) -> list[AclBinding]:
    """The allowances that a command of `kafka-acls.sh` adds; the tool itself is not part of the embedded Kafka."""
    words = shlex.split(command)
    options = list(pairwise(words))
    ((kind, name),) = [(o[2:], v) for o, v in options if o in {"--topic", "--group", "--transactional-id"}]
    return [
        acl(kind, name, operation, user=dict(options)["--allow-principal"], prefixed="prefixed" in words)
        for option, operation in options if option == "--operation"
    ]  # fmt: skip


def test_acls_that_are_missing(pipeline: Pipeline) -> None:
    """With the declared rights alone the pipeline runs; without one, `check` names it, and its command grants it."""
    admin = AdminClient({"bootstrap.servers": pipeline.kafka_bootstrap})
    settings = load(pipeline.environ)
    rights = list(dict.fromkeys(right for service in SERVICES for right in of_a_service(service, settings)))
    declared = {binding for right in rights for binding in granted_by(right.command(ME, "-"))}
    kinds = ("topic", "group", "transactional-id")
    # An allowance for somebody else closes a resource to everybody without one.
    done(admin.create_acls([*declared, *(acl(kind, "*", "Read", user="User:other") for kind in kinds)]))
    until(lambda: lacking(settings) is None or None, "the ACLs take effect")

    for service in list(pipeline.processes):
        process = pipeline.processes.pop(service)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        pipeline.start_process(service)
    until(lambda: all(finding(pipeline, s)[0] == "ok" for s in ("ingress", "streams", "sink")) or None, "all ready")
    receipts = [pipeline.post(SAMPLE | fields) for fields in ({"Event": "never seen before"}, {"Changes": "many"})]
    pipeline.row(f"receipt_id = '{receipts[0]}'")
    pipeline.row(f"receipt_id = '{receipts[1]}'", "telematics.dead_letters")
    settled(pipeline)

    for right in rights:
        missing = right._replace(operations=right.operations[-1:])
        (taken,) = granted_by(missing.command(ME, "-"))
        done(admin.delete_acls([as_filter(taken)]))
        state, detail = until(lambda: lacking(settings), f"{missing} is missing")
        assert str(missing) in detail
        (command,) = re.findall(r"`(kafka-acls.sh [^`]*)`", detail)
        assert state == ("warning" if right == Right(("Write",), "topic", topics.RAW) else "failed")
        done(admin.create_acls(granted_by(command)))
        until(lambda: lacking(settings) is None or None, f"{missing} is granted")


def lacking(settings: Settings) -> tuple[str, str] | None:
    """What `eventpush check` says of rights, if any is missing."""
    found = asyncio.run(access.check(settings))
    return None if found[0] == "ok" else found


def as_filter(binding: AclBinding) -> AclBindingFilter:
    """A filter that only this allowance passes."""
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host,
        binding.operation, binding.permission_type,
    )  # fmt: skip


def done(futures: dict[Any, Future[Any]]) -> None:
    """Wait for the answers of an admin client."""
    for future in futures.values():
        future.result(10)


def test_the_disks_of_the_brokers_are_seen(pipeline: Pipeline) -> None:
    """By DescribeLogDirs: the directory of the broker, with what is free on its disk."""
    disks = asyncio.run(_log_dirs(load(pipeline.environ)))
    assert disks is not None
    (disk,) = disks
    usage = shutil.disk_usage(disk.path)
    assert disk.size_bytes == usage.total
    assert abs(disk.free_bytes - usage.free) < 2**30
    assert "of broker 1 has" in finding(pipeline, "disks")[1]


async def _log_dirs(settings: Settings) -> list[LogDir] | None:
    async with topic_admin.admin(settings) as client:
        return await aiokafka_admin.log_dirs(client)
