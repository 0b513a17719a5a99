"""Take a partition over from its previous owner: nothing that it has begun may end after the new owner has looked.

The consumer group fences the previous owner: its generation is over, so no transaction of it can commit an offset any
more unless the coordinator has taken that offset already. Of what was begun before, the new owner waits for the end:

- the committed offset, until no open transaction can move it (`require_stable`);
- the partitions that it restores from, until no open transaction holds back what is committed behind it.

A live worker ends its transaction before it gives a partition up. A killed or frozen one leaves it open until its
timeout, so after a moment the new owner fences it. Its transactional id is the metadata of the committed offset, which
every owner writes before its first transaction (`claim`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from runtime.adapters.aiokafka import fetch_committed
from runtime.adapters.aiokafka_transactions import UnstableOffsetError, high_watermarks
from runtime.adapters.faust import BatchApp
from runtime.consumer.offset_committer import OffsetCommitter
from runtime.kafka.connection import connection
from runtime.platform.settings import Settings

log = structlog.get_logger()

T = TypeVar("T")

#: How long a live owner has to end its last transaction. Its markers take milliseconds.
_GRACE_S = 1.0
_PAUSE_S = 0.05


class Fence:
    """Ends transactional ids, each once at a time, however many partitions ask for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fencing: dict[str, asyncio.Task[None]] = {}

    async def end(self, transactional_id: str) -> None:
        """Abort the id's open transaction and refuse whatever its producer sends from now on."""
        await self._once(transactional_id, self._end(transactional_id))

    async def end_offsets(self, transactional_id: str, partition: TopicPartition) -> None:
        """End the id, and what the group's coordinator takes for its open transaction.

        A broker that was killed may have lost the end of a transaction that had offsets (found by the soak), and
        nobody writes it again: the offsets stay in doubt for ever. Another transaction of the same producer with an
        offset of this partition, aborted, ends that too. What is in doubt is not lost with it: the account says how
        far the outputs go (`streams.state_restore.next_offset`).
        """
        await self._once(transactional_id, self._end(transactional_id, partition))

    async def _once(self, transactional_id: str, ending: Coroutine[Any, Any, None]) -> None:
        if transactional_id in self._fencing:
            ending.close()
        else:
            task = self._fencing[transactional_id] = asyncio.create_task(ending)
            task.add_done_callback(lambda _: self._fencing.pop(transactional_id))
        await asyncio.shield(self._fencing[transactional_id])

    async def _end(self, transactional_id: str, partition: TopicPartition | None = None) -> None:
        producer = AIOKafkaProducer(
            **connection(self._settings),
            transactional_id=transactional_id,
            transaction_timeout_ms=self._settings.transaction_timeout_s * 1000,
        )
        try:
            await producer.start()
            if partition is not None:
                await producer.begin_transaction()
                offset = {partition: OffsetAndMetadata(0, "")}
                await producer.send_offsets_to_transaction(offset, self._settings.streams_app_id)
                await producer.abort_transaction()
        finally:
            await producer.stop()


class Takeover:
    """The way from a partition's previous owner to this worker, whose transactional id is `own_id`."""

    def __init__(
        self, settings: Settings, app: BatchApp, committer: OffsetCommitter, fence: Fence, own_id: str
    ) -> None:
        self._app = app
        self._committer = committer
        self._fence = fence
        self._own_id = own_id
        # Workers of 0.1.0 have a transactional id for each partition, commit without a generation and no metadata.
        self._id_of_partition = f"{settings.streams_app_id}-{committer.partition.partition}"

    async def committed_offset(self) -> int:
        """Return the committed offset, 0 if there is none, once nothing can move it but this worker."""
        await self._fence.end(self._id_of_partition)
        return (await self._settled(self._committer.read)).offset

    async def wait_for_ends(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> None:
        """Wait until a `read_committed` consumer sees everything that these partitions hold now."""
        written = await high_watermarks(consumer, partitions)

        async def seen() -> None:
            ends = await consumer.end_offsets(list(partitions))
            if any(ends[partition] < end for partition, end in written.items()):
                raise UnstableOffsetError("an open transaction holds back what is committed behind it")

        await self._settled(seen)

    async def claim(self, position: int) -> None:
        """Commit the position and this worker's transactional id; before the first transaction."""
        await self._committer.commit(position, self._own_id)

    async def confirm(self) -> None:
        """After a rebalance: raise `FencedError` unless the partition is still this worker's, as it was left."""
        await self._settled(partial(self._committer.confirm, None))

    async def _settled(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat the attempt until nothing is in doubt; after a moment, fence the owner that keeps it in doubt."""
        loop = asyncio.get_running_loop()
        fence_at_s: float | None = loop.time() + _GRACE_S
        while True:
            try:
                return await attempt()
            except UnstableOffsetError:
                if fence_at_s is not None and loop.time() > fence_at_s:
                    fence_at_s = None
                    await self._fence_previous_owner()
            await asyncio.sleep(_PAUSE_S)

    async def _fence_previous_owner(self) -> None:
        partition = self._committer.partition
        stored: Any = await self._app.with_consumer(lambda consumer: fetch_committed(consumer, partition))
        previous = stored.metadata if stored is not None else ""
        if previous and previous != self._own_id:
            log.info("aborting the transaction of the partition's previous owner", partition=partition.partition,
                     transactional_id=previous)  # fmt: skip
            await self._fence.end_offsets(previous, partition)
