"""`eventpush topics` on a real broker: created as the registry says, checked, altered, or refused."""

import json
from collections.abc import Iterator

import pytest
from aiokafka.admin import NewTopic

from runtime.kafka.topic_admin import Finding, admin, ensure_topics
from runtime.platform.settings import load
from schemas.topics import EVENTS, all_topics, of_type
from tests.integration.pipeline_support import eventpush
from tests.stack import Kafka


@pytest.fixture
def environ(tmp_path) -> Iterator[dict[str, str]]:
    """A broker of its own without a topic."""
    kafka = Kafka.at(tmp_path / "kafka")
    kafka.start()
    yield {"EVENTPUSH_KAFKA_BOOTSTRAP": kafka.bootstrap}
    kafka.end_if_running()


async def test_the_life_of_the_topics(environ: dict[str, str]) -> None:
    """Missing: named. Created: all. Again: unchanged. Settings changed: retention altered, the rest reported.

    A changed partition count is refused, of the fixed topics and of an event type's.
    """
    settings = load(environ)
    missing = eventpush(environ, "topics", "--check")
    assert missing.returncode == 1
    assert f"has no topic {all_topics()[0].name}" in missing.stderr

    created = json.loads(eventpush(environ, "topics", "--json").stdout)
    assert {found["topic"]: found["state"] for found in created} == {t.name: "created" for t in all_topics()}
    lines: list[str] = []
    assert {found.state for found in await ensure_topics(settings, lines.append)} == {"unchanged"}
    assert lines[0] == "telematics.raw.v1: unchanged"

    shorter = load(environ | {"EVENTPUSH_TOPIC_RETENTION_H": "5"})
    assert (await _of(shorter, EVENTS, check_only=True)).state == "differs"
    assert (await _of(shorter, EVENTS)).detail == "retention.ms from 604800000 to 18000000"
    assert (await _of(shorter, EVENTS)).state == "unchanged"  # and nothing else was lost by altering it

    safer = load(
        environ | {"EVENTPUSH_TOPIC_REPLICATION_FACTOR": "3", "EVENTPUSH_TOPIC_MIN_INSYNC_REPLICAS": "2"}
        | {"EVENTPUSH_TOPIC_RETENTION_H": "5"}
    )  # fmt: skip
    differing = await _of(safer, EVENTS)
    assert differing.state == "differs"
    assert differing.detail == "min.insync.replicas is 1, wanted 2; 1 replicas, wanted 3"

    refused = eventpush(environ | {"EVENTPUSH_TOPIC_PARTITIONS": "8"}, "topics")
    assert refused.returncode == 1
    assert "EVENTPUSH_TOPIC_PARTITIONS=8, but the topics have 4" in refused.stderr
    assert refused.stderr.count("\n") == 1

    async with admin(settings) as client:
        await client.create_topics([NewTopic(of_type("strange"), 7, 1)])
    strange = eventpush(environ, "topics")
    assert strange.returncode == 1
    assert f"{of_type('strange')} has 7" in strange.stderr


async def _of(settings, topic: str, *, check_only: bool = False) -> Finding:
    return next(found for found in await ensure_topics(settings, check_only=check_only) if found.topic == topic)
