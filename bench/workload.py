"""The input of every measurement: a seeded fleet's events, encoded once into batches for the raw topic.

Peers and pipeline read the same bytes. Batches have the size of one partition's share of a burst (200 kB) and the
ingress's compression.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from zlib import crc32

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest

from eventpush.simulation.fleet import PlannedEvent, Shares, generate
from runtime.adapters.aiokafka import encoded_batch
from schemas.event_types import TYPES
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID

SEED = 1
DEVICES = 5_000
#: The types of a fleet's events.
EVENT_TYPES = (*TYPES, "harsh_braking")
SHARES = Shares(repeated=0.10, invalid=0.01, conflicting=0.0, unknown_type=0.0)
_BATCH_BYTES = 200_000
_ZSTD = 4  # the record format's number (KIP-110)
_REQUEST_BYTES = 4_000_000
_ATTEMPTS_MAX, _RETRY_DELAY_S = 120, 0.5


class EncodedBatch(NamedTuple):
    """A batch of records as Kafka stores it."""

    partition: int
    records: int
    value: bytes


def events(count: int, event_types: int = 0) -> Iterator[PlannedEvent]:
    """Return the first `count` events of the fleet, spread over `event_types` types if given."""
    planned = islice(generate(SEED, DEVICES, SHARES), count)
    return (retyped(event, event_types) for event in planned) if event_types else planned


def encode(planned: Iterator[PlannedEvent], partitions: int) -> list[EncodedBatch]:
    """Encode events as the ingress does: partitioned by IMEI, with arrival and receipt in headers."""
    arrival_us = time.time_ns() // 1_000
    batches: list[EncodedBatch] = []
    builders: dict[int, BatchBuilder] = {}
    for number, event in enumerate(planned):
        key = event.imei.encode()
        partition = (murmur2(key) & 0x7FFFFFFF) % partitions
        headers = [
            (HEADER_ARRIVAL_US, b"%d" % (arrival_us + number)),
            (HEADER_RECEIPT_ID, b"0123456789ab-%x" % number),
        ]
        timestamp_ms = (arrival_us + number) // 1_000
        while True:
            builder = builders.setdefault(partition, BatchBuilder(_BATCH_BYTES, _ZSTD))
            if builder.append(timestamp=timestamp_ms, key=key, value=event.body, headers=headers) is not None:
                break
            batches.append(_closed(partition, builders.pop(partition)))
    batches += [_closed(partition, builder) for partition, builder in builders.items()]
    return batches


async def fill(bootstrap: str, topic: str, batches: Sequence[EncodedBatch]) -> None:
    """Write the batches unchanged; a million events take some seconds."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        await client.add_topic(topic)
        for together in _requests(batches):
            await _produce(client, topic, together)
    finally:
        await client.close()


def _closed(partition: int, builder: BatchBuilder) -> EncodedBatch:
    return EncodedBatch(partition, builder.record_count(), encoded_batch(builder))


def _requests(batches: Sequence[EncodedBatch]) -> Iterator[dict[int, EncodedBatch]]:
    """Group the batches into requests with at most one batch per partition."""
    waiting: dict[int, list[EncodedBatch]] = {}
    for batch in batches:
        waiting.setdefault(batch.partition, []).append(batch)
    for position in range(max(map(len, waiting.values()), default=0)):
        together: dict[int, EncodedBatch] = {}
        for partition, queue in waiting.items():
            if position < len(queue):
                together[partition] = queue[position]
            if sum(len(batch.value) for batch in together.values()) > _REQUEST_BYTES:
                yield together
                together = {}
        if together:
            yield together


async def _produce(client: AIOKafkaClient, topic: str, batches: dict[int, EncodedBatch]) -> None:
    """Send to the single broker, which leads all partitions; retry until it knows a new topic."""
    (broker,) = client.cluster.brokers()
    pending = {batch.partition: batch.value for batch in batches.values()}
    for _ in range(_ATTEMPTS_MAX):
        request = ProduceRequest(None, -1, 30_000, [(topic, list(pending.items()))])
        reply = await client.send(broker.nodeId, request)
        codes = {partition: code for _, partitions in reply.topics for partition, code, *_ in partitions}
        pending = {partition: pending[partition] for partition, code in codes.items() if code}
        if not pending:
            return
        await asyncio.sleep(_RETRY_DELAY_S)
    raise for_code(max(codes.values()))(topic)


def retyped(event: PlannedEvent, event_types: int) -> PlannedEvent:
    """Change the type to one of `event_types`, by the identity: a repeat keeps the type of its original."""
    imei, device_us, name, _ = event.identity
    number = crc32(f"{imei}{device_us}{name}".encode()) % event_types
    return event._replace(body=event.body.replace(f'"Event":"{name}"'.encode(), b'"Event":"type_%03d"' % number))
