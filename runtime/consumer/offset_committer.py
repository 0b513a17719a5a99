"""Commit a partition's offset and metadata only while this worker owns the partition.

Kafka fences commits by the group's generation, but aiokafka sends the current generation with every commit, even one
decided before a rebalance. So a commit here is tied to the generation in which the committed offset was read. When the
generation has changed, the partition must still be assigned and its committed offset must be the one we left.

Everything that touches the consumer runs in Faust's consumer thread, with aiokafka's loop. Nothing is awaited between
the check of the generation and the creation of the request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
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

from runtime.adapters.aiokafka import commit_offsets, ensure_coordinator_known, fetch_committed, group_generation, owns
from runtime.adapters.aiokafka_transactions import GroupMember
from runtime.adapters.faust import BatchApp

_PAUSE_S = 0.05
_REBALANCING = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class FencedError(Exception):
    """Another worker owns, or has owned, the partition."""


class Committed(NamedTuple):
    """A committed position: the next offset to process (0 if none) and the metadata: an intent or ""."""

    offset: int
    metadata: str


class _StaleError(Exception):
    """The generation has changed, or a rebalance is in progress."""


#: How to ask for a committed offset, with the consumer in its own thread.
FetchOffset = Callable[[Any, TopicPartition], Awaitable[OffsetAndMetadata | None]]


class OffsetCommitter:
    """The committed offset of one partition."""

    def __init__(
        self, app: BatchApp, tp: TP, *, rebalance_timeout_s: float, fetch: FetchOffset = fetch_committed
    ) -> None:
        self._app = app
        self._timeout_s = rebalance_timeout_s
        self._fetch = fetch
        self.partition = TopicPartition(tp.topic, tp.partition)
        self.member: GroupMember | None = None  # as which `committed` was read
        self.committed = Committed(0, "")

    @property
    def generation(self) -> int:
        """The generation in which `committed` was read; negative before."""
        return -1 if self.member is None else self.member.generation

    async def read(self) -> Committed:
        """Return the committed offset once the partition is assigned; ties later commits to this generation."""
        self.member, self.committed = await self._once_settled(self._read)
        return self.committed

    async def commit(self, offset: int, metadata: str = "") -> None:
        """Commit; raise `FencedError` if another worker has committed since, KafkaError if the broker refuses."""
        wanted = Committed(offset, metadata)
        while True:
            try:
                await self._in_thread(_commit, self.generation, {self.partition: wanted})
            except (*_REBALANCING, _StaleError):
                await self.confirm(wanted)
            else:
                self.committed = wanted
                return

    def follow(self, offset: int, metadata: str = "") -> None:
        """Note that the offset was committed in a transaction."""
        self.committed = Committed(offset, metadata)

    async def confirm(self, wanted: Committed | None = None) -> None:
        """Raise `FencedError` unless the partition is assigned and its committed offset is the one we left.

        It may also be `wanted`, if a commit of that has failed with an unknown outcome.
        """
        left = self.committed
        if await self.read() not in (left, wanted):
            topic, partition = self.partition
            raise FencedError(f"{topic}[{partition}] was left at {left} but is now at {self.committed}")

    async def _once_settled(self, function: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._in_thread(function)
                    except _StaleError:
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            topic, partition = self.partition
            raise FencedError(f"{topic}[{partition}] is no longer assigned to this worker") from None

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await self._app.with_consumer(lambda consumer: function(consumer, *args))

    async def _read(self, consumer: Any) -> tuple[GroupMember, Committed]:
        member = GroupMember.of(consumer)
        if member.generation < 0 or not owns(consumer, self.partition):
            raise _StaleError
        stored = await self._fetch(consumer, self.partition)
        if member.generation != group_generation(consumer):
            raise _StaleError
        return member, Committed(stored.offset, stored.metadata or "") if stored else Committed(0, "")


async def commit_together(app: BatchApp, commits: Sequence[tuple[OffsetCommitter, Committed]]) -> bool:
    """Commit in one request, which the coordinator writes as one batch: all of them or none.

    Returns False, with an unknown outcome, if a rebalance has begun since one of the offsets was read: confirm each.
    Raises KafkaError if the broker refuses.
    """
    offsets = {committer.partition: wanted for committer, wanted in commits}
    generations = {committer.generation for committer, _ in commits}
    if len(generations) > 1:
        return False
    try:
        await app.with_consumer(lambda consumer: _commit(consumer, generations.pop(), offsets))
    except (*_REBALANCING, _StaleError):
        return False
    for committer, wanted in commits:
        committer.committed = wanted
    return True


async def _commit(consumer: Any, generation: int, commits: Mapping[TopicPartition, Committed]) -> None:
    """Send the commit, in the consumer thread."""
    offsets = {tp: OffsetAndMetadata(wanted.offset, wanted.metadata) for tp, wanted in commits.items()}
    while True:
        await ensure_coordinator_known(consumer)
        if generation < 0 or group_generation(consumer) != generation:
            raise _StaleError
        try:
            await asyncio.shield(commit_offsets(consumer, offsets))
        except _REBALANCING:
            raise
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            return
