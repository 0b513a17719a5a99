"""A producer's life from its connection to its first failure, and the loop that replaces it.

A gap in an idempotent producer's sequence poisons its partition, so a producer that failed once, in whatever way, is
not used again: a new one takes over, and the old one gets some time for what it still has in flight.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from ingress.batching import Batch
from runtime.adapters.aiokafka import compression_type, fail_all
from runtime.kafka.connection import connection as kafka_connection
from runtime.kafka.partition_count import PartitionCount, PartitionsAddedError
from runtime.platform.backoff import Backoff
from runtime.platform.settings import Settings
from schemas import topics

log = structlog.get_logger(__name__)

BATCH_MAX_BYTES = 524_288  # with one event on top still below the broker's 1 MiB for a batch
_CONNECT_TIMEOUT_S = 5.0
_RECONNECT_FIRST_S, _RECONNECT_MAX_S = 0.1, 1.0

#: What becomes of a write while the raw topic gets more partitions (`runtime.kafka.raw_gate`), and after it.
WHILE_GROWING = (MessageSizeTooLargeError, PartitionsAddedError)


class ProducerSession:
    """One connected producer. One write to a broker is in flight at a time, with one batch per partition."""

    def __init__(self, producer: Any, count: PartitionCount) -> None:
        self.producer = producer
        self._count = count
        self.broken = asyncio.Event()
        self._sending: set[int] = set()  # partitions with a batch in flight
        self._nothing_in_flight = asyncio.Event()
        self._nothing_in_flight.set()

    @property
    def partitions(self) -> int:
        """How many partitions the raw topic has."""
        return self._count.partitions

    @classmethod
    async def connect(cls, settings: Settings) -> "ProducerSession":
        """Connect a new producer. Raise whatever aiokafka raises, and TimeoutError."""
        began_s = time.monotonic()
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            producer = AIOKafkaProducer(
                **kafka_connection(settings),
                client_id="eventpush-ingress",
                acks="all",
                enable_idempotence=True,
                compression_type=compression_type(settings.ingress_compression),
                max_batch_size=BATCH_MAX_BYTES,
                request_timeout_ms=settings.ingress_publish_timeout_ms,
            )
            try:
                await producer.start()
                partitions = len(await producer.partitions_for(topics.RAW))
                return cls(producer, PartitionCount(producer, topics.RAW, partitions, began_s))
            except BaseException:
                await _close(producer)
                raise

    def ready_partitions(self) -> Callable[[int], bool]:
        """Return the test whether a partition's leader has no write in flight."""
        busy = {self._leader(partition) for partition in self._sending}
        return lambda partition: self._leader(partition) not in busy

    def _leader(self, partition: int) -> int | None:
        leader: int | None = self.producer.client.cluster.leader_for_partition(TopicPartition(topics.RAW, partition))
        return leader

    async def send(self, batches: Sequence[Batch], sent: Callable[[Batch, BaseException | None], None]) -> None:
        """Hand the batches to the producer, which puts those for one broker into one request.

        Calls `sent` with each batch once Kafka has acknowledged it, or with the error; `PartitionsAddedError` if the
        batch is of a partition that was chosen among fewer.
        """
        for batch in batches:
            try:
                await self._count.confirm()
                acknowledged = await self.producer.send_batch(batch.builder, topics.RAW, partition=batch.partition)
            except Exception as error:
                acknowledged = asyncio.get_running_loop().create_future()
                acknowledged.set_exception(error)
            acknowledged.add_done_callback(partial(self._completed, batch, sent))

    def reserve(self, batches: Sequence[Batch]) -> None:
        """Note that the batches are in flight."""
        self._nothing_in_flight.clear()
        for batch in batches:
            batch.session = self
            self._sending.add(batch.partition)

    def _completed(
        self, batch: Batch, sent: Callable[[Batch, BaseException | None], None], acknowledged: "asyncio.Future[Any]"
    ) -> None:
        self._sending.remove(batch.partition)
        if not self._sending:
            self._nothing_in_flight.set()
        error = acknowledged.exception()
        if error is not None:
            level = logging.INFO if isinstance(error, WHILE_GROWING) else logging.WARNING
            self.mark_broken(f"{type(error).__name__}: {error}", level)
        sent(batch, error)

    def mark_broken(self, why: str, level: int = logging.WARNING) -> None:
        """End the session: its producer is replaced."""
        if not self.broken.is_set():
            self.broken.set()
            log.log(level, "write to Kafka failed, reconnecting", error=why)

    async def unavailable_because(self) -> str | None:
        """Ask a broker now: None when every partition has a leader, otherwise the problem."""
        client = self.producer.client
        if not await client.force_metadata_update():
            return "Kafka does not answer"
        leaders = len(client.cluster.available_partitions_for_topic(topics.RAW) or ())
        if leaders < self.partitions:
            return f"{self.partitions - leaders} of {self.partitions} partitions of {topics.RAW} have no leader"
        return None

    async def close(self, timeout_s: float) -> None:
        """Wait for what is in flight, no longer than `timeout_s`, and close the producer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._nothing_in_flight.wait()
        await _close(self.producer)


async def keep_connected(
    settings: Settings,
    *,
    connected: Callable[[ProducerSession], None],
    broken: Callable[[ProducerSession], None],
    failed: Callable[[str], None],
) -> None:
    """Reconnect loop: always have a session, until cancelled.

    Calls `connected` with each new session, `broken` with it at its end, and `failed` after each failed attempt.
    """
    backoff = Backoff(_RECONNECT_FIRST_S, _RECONNECT_MAX_S)
    while True:
        try:
            session = await ProducerSession.connect(settings)
        except Exception as error:
            failed(str(error) or type(error).__name__)
            await asyncio.sleep(backoff.next_s())
            continue
        backoff.reset()
        connected(session)
        await session.broken.wait()
        broken(session)


async def _close(producer: Any) -> None:
    """Close a producer without waiting for what it may never deliver."""
    fail_all(producer, KafkaError("producer closed"))
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await producer.client.close()
            await producer.stop()
    except Exception as error:
        log.debug("closing a producer failed", error=str(error))
