"""Read topics for the commands: their offsets and the committed records up to now."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from runtime.adapters import aiokafka_closing
from runtime.kafka.connection import consumer_connection
from runtime.kafka.topic_admin import admin, unreachable
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

_READ_TIMEOUT_MS = 1_000
_METADATA_MAX_AGE_MS = 5_000


class TopicMissingError(OperatorError):
    """Kafka answers, and has no such topic."""


async def require_topic(settings: Settings, topic: str) -> int:
    """Return the number of partitions; raise `OperatorError` if there is no such topic or Kafka is unavailable."""
    async with admin(settings) as client:
        for described in await client.describe_topics():
            if described["topic"] == topic:
                return len(described["partitions"])
    raise TopicMissingError(
        f"Kafka at {settings.kafka_bootstrap} has no topic {topic}",
        "run `eventpush topics`; an event type's topic is created with its first event",
    )


@asynccontextmanager
async def consumer_of(
    settings: Settings, topic: str, *, auto_offset_reset: str = "earliest", **fetch: int
) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """Open a consumer of committed records, without a group, with all partitions of the topic assigned.

    It stays with them: who reads for long asks for `added_partitions`.
    `fetch` holds aiokafka's bounds of a fetch. Inside, an error or missing answer of Kafka becomes an `OperatorError`.
    """
    aiokafka_closing.install()
    partitions = [TopicPartition(topic, number) for number in range(await require_topic(settings, topic))]
    try:
        async with AIOKafkaConsumer(
            **consumer_connection(settings),
            isolation_level="read_committed",
            auto_offset_reset=auto_offset_reset,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            **fetch,
        ) as consumer:
            consumer.assign(partitions)
            yield consumer, partitions
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from None


def added_partitions(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    """Return the partitions that the topic got since these were all of them."""
    topic = partitions[0].topic
    known = consumer.partitions_for_topic(topic) or ()
    return [TopicPartition(topic, number) for number in range(len(partitions), len(known))]


async def offsets(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """Return each partition's first offset and the one after its last."""
    async with consumer_of(settings, topic) as (consumer, partitions):
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return {tp.partition: (begins[tp], ends[tp]) for tp in partitions}


async def committed(settings: Settings, group: str, topic: str) -> dict[int, int]:
    """Return a consumer group's committed offsets, by partition; partitions without one are left out."""
    async with admin(settings) as client:
        found = await client.list_consumer_group_offsets(group)
    return {tp.partition: at.offset for tp, at in found.items() if tp.topic == topic and at.offset >= 0}


async def records(
    settings: Settings, topic: str, begins: Mapping[int, int] | None = None
) -> AsyncGenerator[tuple[int, Sequence[Any]], None]:
    """Yield committed records by partition, from `begins` (default: the beginning) to the current end."""
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


async def offsets_at(settings: Settings, topic: str, moment_ms: int) -> dict[int, int]:
    """Return each partition's first offset with a timestamp from `moment_ms` (since the epoch) on, or its end."""
    async with consumer_of(settings, topic) as (consumer, partitions):
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, moment_ms)))
        ends = await consumer.end_offsets(partitions)
    return {tp.partition: ends[tp] if found[tp] is None else found[tp].offset for tp in partitions}
