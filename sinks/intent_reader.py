"""Read the records of a write intent from Kafka, of all its partitions, whoever owns them."""

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings
from sinks.write_intent import WriteIntent

_FETCH_WAIT_MS = 200


async def read_intent(settings: Settings, intent: WriteIntent) -> dict[int, list[ConsumerRecord[bytes, bytes]]]:
    """Return the committed records of each part, by partition, in order; those that Kafka has deleted are left out."""
    ends = {TopicPartition(intent.topic, part.partition): part.end for part in intent.parts}
    records: dict[int, list[ConsumerRecord[bytes, bytes]]] = {tp.partition: [] for tp in ends}
    consumer = AIOKafkaConsumer(
        **consumer_connection(settings), auto_offset_reset="earliest", isolation_level="read_committed",
        max_partition_fetch_bytes=2**20,
    )  # fmt: skip
    async with consumer:
        consumer.assign(list(ends))
        for part in intent.parts:
            consumer.seek(TopicPartition(intent.topic, part.partition), part.first)
        while unread := [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
            for tp, found in (await consumer.getmany(*unread, timeout_ms=_FETCH_WAIT_MS)).items():
                records[tp.partition] += [record for record in found if record.offset < ends[tp]]
    return records
