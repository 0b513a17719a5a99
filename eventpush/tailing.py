"""Follow a topic: committed records as they arrive."""

from collections.abc import AsyncGenerator

from aiokafka import ConsumerRecord

from eventpush.topic_reader import consumer_of
from runtime.platform.settings import Settings


async def records(settings: Settings, topic: str, since_ms: int | None) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield committed records that have a value, forever; raise `OperatorError` if there is no such topic.

    Begin in each partition with the first record at or after `since_ms` (since the epoch); None: with the next one.
    """
    async with consumer_of(settings, topic) as (consumer, partitions):
        await consumer.seek_to_end(*partitions)
        if since_ms is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            for partition, at in found.items():
                if at is not None:
                    consumer.seek(partition, at.offset)
        async for record in consumer:
            if record.value is not None:
                yield record
