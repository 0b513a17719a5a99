"""Write raw records as the ingress does: the same key, the same partition, the headers that the stream stage reads."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiokafka
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from ingress.batching import partition_of
from ingress.errors import RequestError
from ingress.event_parser import Limits, parse
from runtime.adapters.aiokafka import compression_type
from runtime.kafka.connection import connection
from runtime.kafka.partition_count import PartitionCount, PartitionsAddedError
from runtime.kafka.topic_admin import unreachable
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import topics
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID, HEADER_SENDER

_NO_LIMITS = Limits(events=1, event_bytes=2**31, nesting=100)


class RawRecord(NamedTuple):
    """A payload with what the ingress knew of it when it first came."""

    payload: bytes
    received_us: int
    receipt_id: str | None
    sender: str | None
    more_headers: list[tuple[str, bytes]]

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers of the raw record."""
        found = [(HEADER_ARRIVAL_US, b"%d" % self.received_us)]
        if self.receipt_id is not None:
            found.append((HEADER_RECEIPT_ID, self.receipt_id.encode()))
        if self.sender is not None:
            found.append((HEADER_SENDER, self.sender.encode()))
        return found + self.more_headers


class RawProducer:
    """Writes to the raw topic; see `raw_producer`."""

    def __init__(self, producer: aiokafka.AIOKafkaProducer, count: PartitionCount) -> None:
        self._producer = producer
        self._count = count

    async def send(self, records: Iterable[RawRecord]) -> None:
        """Write records and wait until all in-sync replicas have them.

        Their timestamp is now, whatever their arrival: Kafka's retention begins with it.
        """
        await self._count.confirm()
        sent = []
        for record in records:
            key = key_of(record.payload)
            partition = partition_of(record.payload if key is None else key, self._count.partitions)
            sent.append(
                await self._producer.send(
                    topics.RAW, record.payload, key=key, partition=partition, headers=record.headers()
                )
            )
        await asyncio.gather(*sent)


@asynccontextmanager
async def raw_producer(settings: Settings) -> AsyncIterator[RawProducer]:
    """Open a producer; what Kafka refuses or does not answer inside becomes an `OperatorError`."""
    producer = aiokafka.AIOKafkaProducer(
        **connection(settings),
        acks="all",
        enable_idempotence=True,
        compression_type=compression_type(settings.ingress_compression),
        max_request_size=settings.ingress_inflight_max_bytes,
    )
    began_s = time.monotonic()
    try:
        await producer.start()
        partitions = len(await producer.partitions_for(topics.RAW))
        yield RawProducer(producer, PartitionCount(producer, topics.RAW, partitions, began_s))
    except (MessageSizeTooLargeError, PartitionsAddedError):
        raise OperatorError(
            "the topics are getting more partitions", "run this again when `eventpush topics grow` has finished"
        ) from None
    except (KafkaError, TimeoutError, OSError) as error:
        raise unreachable(settings, error) from None
    finally:
        await producer.stop()


def key_of(payload: bytes) -> bytes | None:
    """Return the key that the ingress would give the payload; None without a usable IMEI, or if it is no event."""
    try:
        (event,) = parse(payload, ndjson=False, limits=_NO_LIMITS)
    except RequestError:
        return None
    return event.key
