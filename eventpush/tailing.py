"""Follow a topic: committed records as they arrive."""

from collections.abc import AsyncGenerator

from aiokafka import ConsumerRecord

from eventpush.topic_reader import added_partitions, consumer_of
from runtime.platform.settings import Settings

_POLL_MS = 500


async def records(settings: Settings, topic: str, since_ms: int | None) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield committed records that have a value, forever; raise `OperatorError` if there is no such topic.

    Begin in each partition with the first record at or after `since_ms` (since the epoch); None: with the next one.
    """
    async with consumer_of(settings, topic) as (consumer, first_partitions):
        partitions = list(first_partitions)
        await consumer.seek_to_end(*partitions)
        if since_ms is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            for partition, at in found.items():
                if at is not None:
                    consumer.seek(partition, at.offset)
        while True:
            for found_records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in found_records:
                    if record.value is not None:
                        yield record
            if added := added_partitions(consumer, partitions):
                positions = {tp: await consumer.position(tp) for tp in partitions} | dict.fromkeys(added, 0)
                partitions = list(positions)
                consumer.assign(partitions)
                for tp, offset in positions.items():
                    consumer.seek(tp, offset)
