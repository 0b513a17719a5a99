"""One Kafka transaction a batch: events, dead letters, the window's changelog, the account and the input offset.

Each input partition has a transactional id of its own, so that whoever takes the partition over fences the former owner
(KIP-98): aiokafka knows no fencing by consumer group segment (KIP-447).
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from runtime.adapters.zstd import compression_type
from runtime.kafka.connection import connection
from runtime.platform.settings import Settings
from streams.batch_processor import Output

log = structlog.get_logger()

_STOP_TIMEOUT_S = 3.0
_NO_HEADERS: list[tuple[str, bytes]] = []
_BATCH_BYTES = 900_000  # below the brokers' usual max.message.bytes of 1 MiB


class Transactions:
    """The transactions of one input partition; any failure is final: the process ends and begins at the last commit."""

    def __init__(self, settings: Settings, source: TopicPartition) -> None:
        self._source = source
        self._group = settings.streams_app_id
        self._timeout_s = settings.transaction_timeout_s
        self._followed: set[str] = set()
        self._producer = AIOKafkaProducer(
            **connection(settings),
            client_id=f"{settings.streams_app_id}-{source.partition}",
            transactional_id=f"{settings.streams_app_id}-{source.partition}",
            transaction_timeout_ms=settings.transaction_timeout_s * 1000,
            acks="all",
            compression_type=compression_type("zstd"),
            max_batch_size=_BATCH_BYTES,
            max_request_size=8 * 2**20,
            linger_ms=0,
        )

    async def start(self) -> None:
        """Fence the former owner: its open transaction is aborted before this returns."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer; an open transaction is left to the next owner or the broker's timeout."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._producer.stop()
        except Exception as error:  # what it could not finish, its successor fences
            log.warning("producer not stopped in order", partition=self._source.partition, error=repr(error))

    async def commit(self, outputs: Mapping[str, Iterable[Output]], next_offset: int) -> dict[str, int]:
        """Publish the outputs, by topic, to the partition number of the source, and commit its offset, or nothing.

        Returns at which offset the last batch of each topic begins; -1 where the broker did not say.

        The offset comes after the outputs: while it is added to the transaction, the broker cannot verify that
        partitions belong to it (KIP-890), refuses one write in ten, and each costs a backoff of 100 ms.
        """
        async with asyncio.timeout(self._timeout_s):
            await self._follow(outputs)
            await self._producer.begin_transaction()
            published = await asyncio.gather(*(self._publish(topic, records) for topic, records in outputs.items()))
            offsets = {self._source: OffsetAndMetadata(next_offset, "")}
            await self._producer.send_offsets_to_transaction(offsets, self._group)
            await self._producer.commit_transaction()
        return dict(zip(outputs, published, strict=True))

    async def _follow(self, topics: Iterable[str]) -> None:
        """Tell the client of topics that it does not follow yet: one that is sent to first would displace the others.

        aiokafka asks for the metadata of all topics until it is told of one, and then of that one alone; batches for
        the others would wait for a leader until they expire.
        """
        if not self._followed.issuperset(topics):
            self._followed.update(topics)
            await self._producer.client.set_topics(self._followed)

    async def _publish(self, topic: str, records: Iterable[Output]) -> int:
        metadata = None
        for batch in _batches(self._producer.create_batch, records):
            delivered = await self._producer.send_batch(batch, topic, partition=self._source.partition)
            metadata = await delivered
        return -1 if metadata is None else int(metadata.offset)


def _batches(new_batch: Callable[[], Any], records: Iterable[Output]) -> Iterator[Any]:
    """The records in as few batches as hold them.

    They go to the batch's own builder: `BatchBuilder.append` does no more, and takes as long again.
    """
    batch, count = new_batch(), 0
    append = batch._builder.append
    for key, value, timestamp_ms in records:
        if append(count, timestamp_ms, key, value, _NO_HEADERS) is None:  # full
            yield _closed(batch, count)
            batch, count = new_batch(), 0
            append = batch._builder.append
            append(count, timestamp_ms, key, value, _NO_HEADERS)
        count += 1
    if count:
        yield _closed(batch, count)


def _closed(batch: Any, count: int) -> Any:
    batch._relative_offset = count
    batch.close()
    return batch
