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
from itertools import chain, zip_longest
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from runtime.adapters.aiokafka import EncodedBatch
from runtime.adapters.aiokafka_transactions import GroupMember, RefusedMemberError
from runtime.consumer.coalescer import Coalescer
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


class Commit(NamedTuple):
    """What one partition wants to commit."""

    source: TopicPartition
    outputs: Mapping[str, Records]
    next_offset: int
    member: GroupMember

    @property
    def size_bytes(self) -> int:
        """The size of the outputs before compression."""
        return sum(int(records.sizes.sum()) for records in self.outputs.values())


#: The base offset of the last batch of each topic; -1 if the broker did not return it.
BaseOffsets = dict[str, int]


class Transactions:
    """The transactions of a worker. Any failure ends the process, which restarts at the last commit.

    `id` is the transactional id, new in every process: the offsets' metadata names it, so that the next owner of a
    partition can fence this worker. `in_progress` counts the batches that were fetched and not committed.
    """

    def __init__(self, settings: Settings, in_progress: Callable[[], int]) -> None:
        self.id = f"{settings.streams_app_id}-{uuid.uuid4()}"
        self._compression = settings.streams_compression
        self._timeout_s = settings.transaction_timeout_s
        self._commits = Coalescer[Commit, BaseOffsets](
            self._commit_together,
            in_progress=in_progress,
            size_of=lambda commit: commit.size_bytes,
            enough=_ENOUGH_BYTES,
            wait_s=settings.streams_linger_ms / 1000,
        )
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

    @property
    def held(self) -> int:
        """The number of batches that wait for their commit."""
        return self._commits.submitted

    async def start(self) -> None:
        """Connect, and register the transactional id."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer; an open transaction is left to the partitions' next owners or the broker's timeout."""
        self._commits.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._producer.stop()
        except Exception as error:  # the next owners fence whatever is left open
            log.warning("producer did not stop cleanly", error=repr(error))

    async def commit(self, commit: Commit) -> BaseOffsets:
        """Publish the outputs, by topic, to the source's partition number and commit its offset, atomically.

        Raises `RefusedMemberError` when nothing was committed because the group has gone on without this member. A
        cancelled call takes the outputs out again, unless their transaction has begun: then it goes on.
        """
        return await self._commits.submit(commit)

    async def _commit_together(self, taken: Sequence[Commit]) -> list[BaseOffsets | Exception]:
        """Commit what is of the latest generation in one transaction, and refuse the rest."""
        latest = taken[-1].member.joined
        current = [commit for commit in taken if commit.member.joined == latest]
        with metrics.STREAMS_TRANSACTION_S.metric.time():
            published = await self._transact(current)
        return [
            {topic: published[topic, commit.source.partition] for topic in commit.outputs}
            if commit.member.joined == latest
            else RefusedMemberError("a rebalance has begun a new generation")
            for commit in taken
        ]

    async def _transact(self, commits: Sequence[Commit]) -> dict[tuple[str, int], int]:
        """Commit one transaction; return what `_publish` does.

        The offsets follow the outputs: while they are being added to the transaction, the broker cannot verify that
        partitions belong to it (KIP-890) and refuses one write in ten; each refusal costs a backoff of 100 ms.
        """
        producer = self._producer
        async with asyncio.timeout(self._timeout_s):
            await self._request_metadata({topic for commit in commits for topic in commit.outputs})
            await producer.begin_transaction()
            published = await self._publish(commits)
            offsets = {commit.source: OffsetAndMetadata(commit.next_offset, self.id) for commit in commits}
            try:
                await producer.send_offsets_to_transaction(offsets, commits[0].member)
            except RefusedMemberError:
                await producer.abort_transaction()
                raise
            await producer.commit_transaction()
        return published

    async def _request_metadata(self, topics: Iterable[str]) -> None:
        """Add the topics to those whose metadata the client requests.

        aiokafka requests the metadata of all topics until the first send, and then of that topic only; batches for the
        others would wait for a leader until they expire.
        """
        if not self._known_topics.issuperset(topics):
            self._known_topics.update(topics)
            await self._producer.client.set_topics(self._known_topics)

    async def _publish(self, commits: Sequence[Commit]) -> dict[tuple[str, int], int]:
        """Publish everything; return the base offset of the last batch of each topic and partition.

        Of each topic and partition the first batch is handed over before any second one, which has to wait for it: so
        all are added to the transaction in one request, and go to their broker in one.
        """
        targets = [(topic, commit.source.partition) for commit in commits for topic in commit.outputs]
        outputs = [records for commit in commits for records in commit.outputs.values()]
        delivered: dict[tuple[str, int], list[asyncio.Future[RecordMetadata]]] = {target: [] for target in targets}
        for turn in zip_longest(*batches_of(outputs, _BATCH_BYTES)):
            for (topic, partition), batch in zip(targets, turn, strict=True):
                if batch is not None:
                    encoded = EncodedBatch(batch, self._compression)
                    future = await self._producer.send_batch(encoded, topic, partition=partition)
                    delivered[topic, partition].append(future)
        await asyncio.gather(*chain.from_iterable(delivered.values()))
        return {target: int(futures[-1].result().offset) for target, futures in delivered.items()}
