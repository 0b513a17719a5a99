"""What a window kept on disk spares its next owner of the changelog, on a real broker."""

import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from runtime.kafka.topic_admin import admin
from runtime.platform.settings import Settings, load
from streams.disk_segment import window_on_disk
from streams.state_restore import encode, reader, restore
from streams.window import DeduplicationWindow, DedupResult, Rows
from tests.identities import random_rows

RETENTION_US = 4 * 3_600_000_000
HOUR_US = RETENTION_US // 4
BEGAN_US = (time.time_ns() // 1_000 // HOUR_US - 6) * HOUR_US  # the start of an hour


def made(seed: int, count: int = 100) -> Rows:
    """The rows of this seed, always the same."""
    return random_rows(np.random.default_rng(seed), count)


async def write(settings: Settings, changelog: TopicPartition, records: list[tuple[Rows, int]]) -> None:
    """Changelog records as the stream stage writes them."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        for rows, time_us in records:
            value = encode(rows, time_us)
            await producer.send_and_wait(changelog.topic, value, partition=0, timestamp_ms=time_us // 1000)


async def restored(settings: Settings, changelog: TopicPartition, directory: Path) -> tuple[DeduplicationWindow, int]:
    """A window that was opened and restored, and how many of its identities were on disk before."""
    window = window_on_disk(directory, RETENTION_US)
    kept = len(window)
    async with reader(settings, changelog) as consumer:
        await restore(consumer, changelog, window)
    return window, kept


@pytest.fixture
def settings(kafka_bootstrap: str) -> Settings:
    """Those of the broker that the session shares."""
    return load({"EVENTPUSH_KAFKA_BOOTSTRAP": kafka_bootstrap})


async def new_changelog(settings: Settings) -> TopicPartition:
    """The only partition of a topic that nothing else uses."""
    topic = f"restoring.{uuid.uuid4()}"
    async with admin(settings) as client:
        await client.create_topics([NewTopic(topic, 1, 1)])
    return TopicPartition(topic, 0)


async def test_only_what_is_missing_is_read(settings: Settings, tmp_path: Path) -> None:
    """What is on disk is taken from there, and the rest from the changelog, each identity once."""
    changelog = await new_changelog(settings)
    first, twin, later = (made(1), BEGAN_US), (made(2), BEGAN_US), (made(3), BEGAN_US + HOUR_US)
    await write(settings, changelog, [first])
    window, kept = await restored(settings, changelog, tmp_path)
    assert (kept, len(window)) == (0, 100)
    window.close()

    await write(settings, changelog, [twin, later])
    window, kept = await restored(settings, changelog, tmp_path)
    assert (kept, len(window)) == (100, 300)
    assert window.stream_time_us == BEGAN_US + HOUR_US
    everything = np.concatenate([first[0], twin[0], later[0]])
    assert set(window.classify(everything).tolist()) == {DedupResult.DUPLICATE}
    window.close()

    window, kept = await restored(settings, changelog, tmp_path)
    assert (kept, len(window)) == (300, 300)
    window.close()


async def test_what_is_not_of_the_changelog_is_thrown_away(settings: Settings, tmp_path: Path) -> None:
    """A window that was left by another changelog (Kafka was set up again) counts for nothing."""
    one, other = await new_changelog(settings), await new_changelog(settings)
    await write(settings, one, [(made(1), BEGAN_US)])
    await write(settings, other, [(made(2), BEGAN_US + 5 * HOUR_US // 2)])
    window, _ = await restored(settings, one, tmp_path)
    window.close()
    window, kept = await restored(settings, other, tmp_path)
    assert (kept, len(window)) == (100, 100)
    assert set(window.classify(made(1)).tolist()) == {DedupResult.UNIQUE}
    assert set(window.classify(made(2)).tolist()) == {DedupResult.DUPLICATE}
    window.close()
