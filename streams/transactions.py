"""Commit each batch in one Kafka transaction: events, dead letters, the window's changelog, the account, the offset.

Each input partition has its own transactional id, so that a new owner fences the previous one (KIP-98): aiokafka does
not support fencing by consumer group generation (KIP-447).
"""

import asyncio
from collections.abc import Iterable, Mapping

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from runtime.adapters.aiokafka import EncodedBatch
from runtime.kafka.connection import connection
from runtime.kafka.record_format import Records, batches_of
from runtime.platform import metrics
from runtime.platform.settings import Settings

log = structlog.get_logger()

_STOP_TIMEOUT_S = 3.0
_BATCH_BYTES = 900_000  # below the brokers' usual max.message.bytes of 1 MiB


class Transactions:
    """The transactions of one input partition. Any failure ends the process, which restarts at the last commit."""

    def __init__(self, settings: Settings, source: TopicPartition) -> None:
        self._source = source
        self._group = settings.streams_app_id
        self._compression = settings.streams_compression
        self._timeout_s = settings.transaction_timeout_s
        self._known_topics: set[str] = set()
        self._producer = AIOKafkaProducer(
            **connection(settings),
            client_id=f"{settings.streams_app_id}-{source.partition}",
            transactional_id=f"{settings.streams_app_id}-{source.partition}",
            transaction_timeout_ms=settings.transaction_timeout_s * 1000,
            acks="all",
            max_request_size=8 * 2**20,
            linger_ms=0,
        )

    async def start(self) -> None:
        """Fence the previous owner: its open transaction is aborted before this returns."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer; an open transaction is left to the next owner or the broker's timeout."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._producer.stop()
        except Exception as error:  # the next owner fences whatever is left open
            log.warning("producer did not stop cleanly", partition=self._source.partition, error=repr(error))

    async def commit(self, outputs: Mapping[str, Records], next_offset: int) -> dict[str, int]:
        """Publish the outputs, by topic, to the source's partition number and commit its offset, atomically.

        Returns the base offset of the last batch of each topic; -1 if the broker did not return it.

        The offset follows the outputs: while it is being added to the transaction, the broker cannot verify that
        partitions belong to it (KIP-890) and refuses one write in ten; each refusal costs a backoff of 100 ms.
        """
        with metrics.STREAMS_TRANSACTION_S.metric.time():
            return await self._commit(outputs, next_offset)

    async def _commit(self, outputs: Mapping[str, Records], next_offset: int) -> dict[str, int]:
        async with asyncio.timeout(self._timeout_s):
            await self._request_metadata(outputs)
            await self._producer.begin_transaction()
            published = await asyncio.gather(*(self._publish(topic, records) for topic, records in outputs.items()))
            offsets = {self._source: OffsetAndMetadata(next_offset, "")}
            await self._producer.send_offsets_to_transaction(offsets, self._group)
            await self._producer.commit_transaction()
        return dict(zip(outputs, published, strict=True))

    async def _request_metadata(self, topics: Iterable[str]) -> None:
        """Add the topics to those whose metadata the client requests.

        aiokafka requests the metadata of all topics until the first send, and then of that topic only; batches for the
        others would wait for a leader until they expire.
        """
        if not self._known_topics.issuperset(topics):
            self._known_topics.update(topics)
            await self._producer.client.set_topics(self._known_topics)

    async def _publish(self, topic: str, records: Records) -> int:
        metadata = None
        for batch in batches_of(records, _BATCH_BYTES):
            encoded = EncodedBatch(batch, self._compression)
            delivered = await self._producer.send_batch(encoded, topic, partition=self._source.partition)
            metadata = await delivered
        return -1 if metadata is None else int(metadata.offset)
