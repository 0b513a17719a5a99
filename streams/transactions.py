"""Commit what the worker's partitions have processed, one Kafka transaction after the other.

    outputs and offset of each partition ──> gather ──> outputs, then the offsets, then the commit

A transaction costs the worker and the broker several requests, however little is in it. So a worker has one producer
and one transaction at a time, over all partitions that wait: events, dead letters, the window's changelog, the account,
the offsets. It is fenced by the consumer group: the coordinator takes offsets only from a member of the current
generation (KIP-447, `runtime.adapters.aiokafka_transactions`).
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from runtime.adapters.aiokafka import EncodedBatch
from runtime.adapters.aiokafka_transactions import GroupMember, RefusedMemberError
from runtime.kafka.connection import connection
from runtime.kafka.record_format import Records, batches_of
from runtime.platform import metrics
from runtime.platform.settings import Settings

log = structlog.get_logger()

_STOP_TIMEOUT_S = 3.0
_BATCH_BYTES = 900_000  # below the brokers' usual max.message.bytes of 1 MiB
#: Records that are worth a transaction at once, before compression: thousands of events. A transaction has at most
#: these and one more batch, so its requests stay below the brokers' `socket.request.max.bytes` of 100 MiB.
_ENOUGH_BYTES = 8 * 2**20
_GATHER_PAUSE_S = 0.002


@dataclass(eq=False, slots=True)
class _Waiting:
    """What one partition wants to commit; `done` yields the base offset of the last batch of each topic."""

    source: TopicPartition
    outputs: Mapping[str, Records]
    next_offset: int
    member: GroupMember
    size_bytes: int
    since_s: float
    done: "asyncio.Future[dict[str, int]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Transactions:
    """The transactions of a worker. Any failure ends the process, which restarts at the last commit.

    `id` is the transactional id, new in every process: the offsets' metadata names it, so that the next owner of a
    partition can fence this worker. `in_progress` counts the batches that were fetched and not committed.
    """

    def __init__(self, settings: Settings, in_progress: Callable[[], int]) -> None:
        self.id = f"{settings.streams_app_id}-{uuid.uuid4()}"
        self._compression = settings.streams_compression
        self._timeout_s = settings.transaction_timeout_s
        self._linger_s = settings.streams_linger_ms / 1000
        self._in_progress = in_progress
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self.held = 0  # batches that wait for their commit
        self._known_topics: set[str] = set()
        self._producer = AIOKafkaProducer(
            **connection(settings),
            client_id=settings.streams_app_id,
            transactional_id=self.id,
            transaction_timeout_ms=settings.transaction_timeout_s * 1000,
            acks="all",
            max_request_size=8 * 2**20,
            linger_ms=0,
        )

    async def start(self) -> None:
        """Connect, and register the transactional id."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer; an open transaction is left to the partitions' next owners or the broker's timeout."""
        if self._running is not None:
            self._running.cancel()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._producer.stop()
        except Exception as error:  # the next owners fence whatever is left open
            log.warning("producer did not stop cleanly", error=repr(error))

    async def commit(
        self, source: TopicPartition, outputs: Mapping[str, Records], next_offset: int, member: GroupMember
    ) -> dict[str, int]:
        """Publish the outputs, by topic, to the source's partition number and commit its offset, atomically.

        Returns the base offset of the last batch of each topic; -1 if the broker did not return it. Raises
        `RefusedMemberError` when nothing was committed because the group has gone on without this `member`. A
        cancelled call takes the outputs out again, unless their transaction has begun: then it goes on.
        """
        size_bytes = sum(int(records.sizes.sum()) for records in outputs.values())
        now_s = asyncio.get_running_loop().time()
        waiting = _Waiting(source, outputs, next_offset, member, size_bytes, now_s)
        self._waiting.append(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        self.held += 1
        try:
            return await waiting.done
        finally:
            self.held -= 1
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def _run(self) -> None:
        """Commit one transaction after the other, until no partition waits."""
        while self._waiting:
            await self._gather()
            taken = self._take()
            try:
                if taken:
                    with metrics.STREAMS_TRANSACTION_S.metric.time():
                        await self._commit(taken)
            except Exception as error:
                for waiting in taken:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)

    async def _gather(self) -> None:
        """Wait for the other batches in progress until there is enough, or the oldest has waited long enough."""
        loop = asyncio.get_running_loop()
        while (  # noqa: ASYNC110 - what it waits for is counted elsewhere
            0 < len(self._waiting) < self._in_progress()
            and sum(waiting.size_bytes for waiting in self._waiting) < _ENOUGH_BYTES
            and loop.time() < self._waiting[0].since_s + self._linger_s
        ):
            await asyncio.sleep(_GATHER_PAUSE_S)

    def _take(self) -> list[_Waiting]:
        """Take as many as one transaction may hold, at least one, all of one generation: the latest to come."""
        taken: list[_Waiting] = []
        size_bytes = 0
        while self._waiting and size_bytes < _ENOUGH_BYTES:
            waiting = self._waiting.pop(0)
            size_bytes += waiting.size_bytes
            taken.append(waiting)
        latest = taken[-1].member.joined if taken else None
        for waiting in taken:
            if waiting.member.joined != latest:
                waiting.done.set_exception(RefusedMemberError("a rebalance has begun a new generation"))
        return [waiting for waiting in taken if waiting.member.joined == latest]

    async def _commit(self, taken: Sequence[_Waiting]) -> None:
        """Commit one transaction.

        The offsets follow the outputs: while they are being added to the transaction, the broker cannot verify that
        partitions belong to it (KIP-890) and refuses one write in ten; each refusal costs a backoff of 100 ms.
        """
        producer = self._producer
        async with asyncio.timeout(self._timeout_s):
            await self._request_metadata({topic for waiting in taken for topic in waiting.outputs})
            await producer.begin_transaction()
            published = await self._publish(taken)
            offsets = {waiting.source: OffsetAndMetadata(waiting.next_offset, self.id) for waiting in taken}
            try:
                await producer.send_offsets_to_transaction(offsets, taken[0].member)
            except RefusedMemberError:
                await producer.abort_transaction()
                raise
            await producer.commit_transaction()
        for waiting in taken:
            if not waiting.done.done():
                partition = waiting.source.partition
                waiting.done.set_result({topic: published[topic, partition] for topic in waiting.outputs})

    async def _request_metadata(self, topics: Iterable[str]) -> None:
        """Add the topics to those whose metadata the client requests.

        aiokafka requests the metadata of all topics until the first send, and then of that topic only; batches for the
        others would wait for a leader until they expire.
        """
        if not self._known_topics.issuperset(topics):
            self._known_topics.update(topics)
            await self._producer.client.set_topics(self._known_topics)

    async def _publish(self, taken: Sequence[_Waiting]) -> dict[tuple[str, int], int]:
        """Publish everything; return the base offset of the last batch of each topic and partition.

        Of each topic and partition the first batch is handed over before any second one, which has to wait for it: so
        all are added to the transaction in one request, and go to their broker in one.
        """
        targets = [(topic, waiting.source.partition) for waiting in taken for topic in waiting.outputs]
        outputs = [records for waiting in taken for records in waiting.outputs.values()]
        delivered: dict[tuple[str, int], list[asyncio.Future[RecordMetadata]]] = {target: [] for target in targets}
        for turn in zip_longest(*batches_of(outputs, _BATCH_BYTES)):
            for (topic, partition), batch in zip(targets, turn, strict=True):
                if batch is not None:
                    encoded = EncodedBatch(batch, self._compression)
                    future = await self._producer.send_batch(encoded, topic, partition=partition)
                    delivered[topic, partition].append(future)
        await asyncio.gather(*chain.from_iterable(delivered.values()))
        return {target: int(futures[-1].result().offset) for target, futures in delivered.items()}
