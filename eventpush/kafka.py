"""Kafka, as the commands use it: what is on a topic now."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from runtime.errors import Problem
from runtime.kafka import connection
from runtime.settings import Settings
from runtime.topics_admin import admin, unreachable

_READ_TIMEOUT_MS = 1_000


async def require_topic(settings: Settings, topic: str) -> int:
    """How many partitions the topic has; raises `Problem` when it is not there, or Kafka is not."""
    async with admin(settings) as client:
        for described in await client.describe_topics():
            if described["topic"] == topic:
                return len(described["partitions"])
    raise Problem(
        f"Kafka at {settings.kafka_bootstrap} has no topic {topic}",
        "run `eventpush topics`; an event type's own topic comes with its first event",
    )


@asynccontextmanager
async def consumer_of(settings: Settings, topic: str) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """Open a consumer of committed records without a group; yield it and the topic's partitions, assigned to it.

    What Kafka refuses or does not answer inside becomes a `Problem`.
    """
    partitions = [TopicPartition(topic, number) for number in range(await require_topic(settings, topic))]
    try:
        async with AIOKafkaConsumer(
            **connection(settings), isolation_level="read_committed", auto_offset_reset="earliest"
        ) as consumer:
            consumer.assign(partitions)
            yield consumer, partitions
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from None


async def offsets(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """Each partition's first offset and the one after its last."""
    async with consumer_of(settings, topic) as (consumer, partitions):
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return {tp.partition: (begins[tp], ends[tp]) for tp in partitions}


async def committed(settings: Settings, group: str, topic: str) -> dict[int, int]:
    """Return a consumer group's committed offset by partition, leaving out partitions without one."""
    async with admin(settings) as client:
        found = await client.list_consumer_group_offsets(group)
    return {tp.partition: at.offset for tp, at in found.items() if tp.topic == topic and at.offset >= 0}


async def records(
    settings: Settings, topic: str, begins: Mapping[int, int] | None = None
) -> AsyncGenerator[tuple[int, Sequence[Any]], None]:
    """Yield the committed records, by partition, from `begins` (or the first ones) up to the current end."""
    async with consumer_of(settings, topic) as (consumer, partitions):
        if begins is None:
            await consumer.seek_to_beginning(*partitions)
        else:
            for tp in partitions:
                consumer.seek(tp, begins[tp.partition])
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, found in (await consumer.getmany(timeout_ms=_READ_TIMEOUT_MS)).items():
                yield tp.partition, found
