"""A partition's committed offset and its metadata, written only by the worker that owns the partition.

Kafka fences a commit by the group's generation, but aiokafka puts the newest generation under every commit, also under
one that was decided before a rebalance. So a commit here is tied to the generation in which the partition was read:
when that has passed, the partition must still be ours and its committed offset still the one that we left.

Everything that touches the consumer runs in Faust's consumer thread, where aiokafka's loop is; between the check of the
generation and the making of the request nothing is awaited.
"""

import asyncio
from typing import Any, NamedTuple

from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP

from runtime.adapters.faust import BatchApp, in_thread

_PAUSE_S = 0.05
_REBALANCING = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class FencedError(Exception):
    """Another worker has, or had, the partition."""


class Committed(NamedTuple):
    """Where a partition stands: the next offset to process (0 at the very beginning), and an intent's text or ""."""

    offset: int
    metadata: str


class _Stale(Exception):  # noqa: N818
    """The generation has passed, or a rebalance is under way."""


class OffsetCommitter:
    """The committed offset of one partition."""

    def __init__(self, app: BatchApp, tp: TP, *, rebalance_timeout_s: float) -> None:
        self._app = app
        self._tp = TopicPartition(tp.topic, tp.partition)
        self._timeout_s = rebalance_timeout_s
        self._generation = -1
        self.committed = Committed(0, "")

    async def read(self) -> Committed:
        """The committed offset as the broker has it, once the partition is ours; commits are tied to this moment."""
        self._generation, self.committed = await self._once_settled(self._read)
        return self.committed

    async def commit(self, offset: int, metadata: str = "") -> None:
        """Commit; raises `FencedError` if another worker has committed since, KafkaError if the broker refuses."""
        wanted = Committed(offset, metadata)
        while True:
            try:
                await self._in_thread(self._commit, self._generation, wanted)
            except (*_REBALANCING, _Stale):
                await self._confirm(wanted)
            else:
                self.committed = wanted
                return

    def follow(self, offset: int) -> None:
        """The offset was committed by other means: in a transaction."""
        self.committed = Committed(offset, "")

    async def confirm(self) -> None:
        """Raises `FencedError` unless the partition is ours and stands where we left it."""
        await self._confirm(None)

    async def _confirm(self, wanted: Committed | None) -> None:
        left = self.committed
        if await self.read() not in (left, wanted):
            raise FencedError(
                f"{self._tp.topic}[{self._tp.partition}] was left at {left}, and stands at {self.committed}"
            )

    async def _once_settled(self, function: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._in_thread(function)
                    except _Stale:
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise FencedError(f"{self._tp.topic}[{self._tp.partition}] is not ours any more") from None

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        thread = self._app.consumer._thread
        return await in_thread(thread, function(thread._ensure_consumer(), *args))

    # --- in the consumer thread ---

    async def _read(self, consumer: Any) -> tuple[int, Committed]:
        coordinator = consumer._coordinator
        generation = coordinator.generation
        self._check_ours(consumer)
        offsets = await coordinator.fetch_committed_offsets([self._tp])
        if generation != coordinator.generation:
            raise _Stale
        stored = offsets.get(self._tp)
        return generation, Committed(stored.offset, stored.metadata or "") if stored else Committed(0, "")

    async def _commit(self, consumer: Any, generation: int, wanted: Committed) -> None:
        coordinator = consumer._coordinator
        while True:
            await coordinator.ensure_coordinator_known()
            if generation < 0 or coordinator.generation != generation:
                raise _Stale
            try:
                await asyncio.shield(
                    coordinator._do_commit_offsets(None, {self._tp: OffsetAndMetadata(wanted.offset, wanted.metadata)})
                )
            except _REBALANCING:
                raise
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    def _check_ours(self, consumer: Any) -> None:
        subscription = consumer._subscription
        if subscription.reassignment_in_progress or self._tp not in subscription.assigned_partitions():
            raise _Stale
