"""Follow compacted topics as tables: read them to their end at start, then go on for ever."""

import asyncio
from collections.abc import Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from runtime.adapters.aiokafka import reaches_broker
from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings

_PAUSE_S = 0.2

#: Take over a record: its key and its value, which is None when the key was deleted.
Apply = Callable[[bytes | None, bytes | None], None]


async def follow(settings: Settings, tables: Mapping[str, Apply], on_loaded: Callable[[], None]) -> None:
    """Pass each record to its topic's function; call `on_loaded` once, when all topics were read to their end."""
    consumer = AIOKafkaConsumer(
        **consumer_connection(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=500,
    )
    await consumer.start()
    try:
        tps = [tp for topic in tables for tp in await partitions_of(consumer, topic)]
        consumer.assign(tps)
        ends, is_loaded = await consumer.end_offsets(tps), False
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    tables[tp.topic](record.key, record.value)
            if not is_loaded and await _reached(consumer, ends):
                is_loaded = True
                on_loaded()
    finally:
        await consumer.stop()


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """Return all partitions of a topic, which may be fewer than those of the topics that grow."""
    while not (found := consumer.partitions_for_topic(topic)):
        await reaches_broker(consumer)
        await asyncio.sleep(_PAUSE_S)
    return [TopicPartition(topic, partition) for partition in sorted(found)]


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    return all([await consumer.position(tp) >= end for tp, end in ends.items()])
