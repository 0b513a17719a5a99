"""Transactions fenced by the consumer group (KIP-447), which aiokafka lacks: two requests and their handling.

- TxnOffsetCommit 3: offsets join a transaction under the group's generation and the member's id, so the coordinator
  refuses those of a member that a rebalance has left behind. Hand a `GroupMember` to `send_offsets_to_transaction`.
- OffsetFetch 7 with `require_stable`: an offset that an open transaction may still move is not answered
  (`stable_offset`).

Both need Kafka 2.5. A refusal leaves the transaction as it is, to be aborted: aiokafka's own handling of errors forgets
which partitions belong to it, and a following abort would send nothing and leave it open until its timeout.
"""

import asyncio
import copy
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import (
    IllegalGenerationError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.errors import for_code as error_for_code
from aiokafka.producer import sender
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

#: See `runtime.adapters.aiokafka.PRIVATE_NAMES`.
PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "aiokafka.producer.sender:TxnOffsetCommitHandler": ("_group_id", "_offsets", "_sender"),
    "aiokafka.producer.sender:Sender": ("_txn_manager",),
    "aiokafka.producer.transaction_manager:TransactionManager": ("_pending_txn_offsets",),
    "aiokafka.consumer.consumer:AIOKafkaConsumer": ("_coordinator", "_fetcher"),
    "aiokafka.consumer.fetcher:Fetcher": ("_isolation_level",),
    "aiokafka.consumer.group_coordinator:GroupCoordinator": ("_send_req",),
}

_UNSTABLE_OFFSET_COMMIT, _FENCED_INSTANCE_ID = 88, 82  # which aiokafka does not know
_REFUSED = frozenset(
    {IllegalGenerationError.errno, UnknownMemberIdError.errno, RebalanceInProgressError.errno, _FENCED_INSTANCE_ID}
)
_NO_LEADER_EPOCH = -1
_UNKNOWN_OFFSET = -1
_RETRY_S, _END_OFFSETS_TIMEOUT_MS = 0.1, 10_000


class RefusedMemberError(KafkaError):
    """The coordinator refused a transaction's offsets: a rebalance has left the member or its generation behind."""


class UnstableOffsetError(KafkaError):
    """What is asked for may still change by a transaction that is neither committed nor aborted."""


class GroupMember(str):
    """A consumer group's id, with the generation and the member that offsets are committed by."""

    __slots__ = ("generation", "member_id")
    generation: int
    member_id: str

    @property
    def joined(self) -> tuple[int, str]:
        """The generation and the member's id."""
        return self.generation, self.member_id

    @classmethod
    def of(cls, consumer: Any) -> "GroupMember":
        """Return the member that a consumer is now; call in the consumer's thread."""
        coordinator = consumer._coordinator
        return cls.made(coordinator.group_id, int(coordinator.generation), str(coordinator.member_id))

    @classmethod
    def made(cls, group_id: str, generation: int, member_id: str) -> "GroupMember":
        """Return a member with these ids."""
        member = cls(group_id)
        member.generation, member.member_id = generation, member_id
        return member


def install() -> None:
    """Patch aiokafka's sender; further calls change nothing."""
    sender.TxnOffsetCommitHandler = _TxnOffsetCommitHandler


# --- TxnOffsetCommit -------------------------------------------------------------------------------------------------


class _TxnOffsetCommitResponse3(Response):
    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", CompactArray(
            ("topic", CompactString("utf-8")),
            ("partitions", CompactArray(("partition", Int32), ("error_code", Int16), ("tags", TaggedFields))),
            ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


class _TxnOffsetCommitRequest3(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 3
    RESPONSE_TYPE = _TxnOffsetCommitResponse3
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("group_id", CompactString("utf-8")),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", CompactString("utf-8")),
        ("group_instance_id", CompactString("utf-8")),
        ("topics", CompactArray(
            ("topic", CompactString("utf-8")),
            ("partitions", CompactArray(
                ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", CompactString("utf-8")),
                ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


class TxnOffsetCommitRequest(Request[_TxnOffsetCommitRequest3]):
    """Commit a group's offsets in a transaction, as a member of the group."""

    API_KEY = 28

    def __init__(
        self,
        transactional_id: str,
        member: GroupMember,
        producer: tuple[int, int],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> None:
        self._transactional_id = transactional_id
        self._member = member
        self._producer = producer
        self._offsets = offsets

    def build(self, request_struct_class: type[_TxnOffsetCommitRequest3]) -> _TxnOffsetCommitRequest3:
        """Return the request with its offsets by topic."""
        member = self._member
        topics: list[tuple[Any, ...]] = [
            (topic, [(tp.partition, at.offset, _NO_LEADER_EPOCH, at.metadata, {})
                     for tp, at in self._offsets.items() if tp.topic == topic], {})
            for topic in sorted({tp.topic for tp in self._offsets})
        ]  # fmt: skip
        return request_struct_class(
            self._transactional_id, str(member), *self._producer, member.generation, member.member_id, None, topics, {}
        )


class _Errors:
    """A response as the handler of version 0 reads it."""

    def __init__(self, response: Any) -> None:
        self.errors = [
            (topic, [(partition, code) for partition, code, _ in partitions])
            for topic, partitions, _ in response.topics
        ]


class _TxnOffsetCommitHandler(sender.TxnOffsetCommitHandler):
    """Send version 3 for a `GroupMember`, and what aiokafka sends for the plain id of a group."""

    def create_request(self) -> Any:
        if not isinstance(self._group_id, GroupMember):
            return super().create_request()
        manager = self._sender._txn_manager
        producer = manager.producer_id, manager.producer_epoch
        return TxnOffsetCommitRequest(manager.transactional_id, self._group_id, producer, self._offsets)

    def handle_response(self, response: Any) -> Any:
        if not isinstance(self._group_id, GroupMember):
            return super().handle_response(response)
        errors = _Errors(response)
        refused = {code for _, partitions in errors.errors for _, code in partitions} & _REFUSED
        if not refused:
            return super().handle_response(errors)
        _, _, done = self._sender._txn_manager._pending_txn_offsets.popleft()
        member = self._group_id
        done.set_exception(
            RefusedMemberError(f"generation {member.generation} of group {member} is over (error {min(refused)})")
        )
        return None


# --- OffsetFetch -----------------------------------------------------------------------------------------------------


class _OffsetFetchResponse7(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", CompactArray(
            ("topic", CompactString("utf-8")),
            ("partitions", CompactArray(
                ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", CompactString("utf-8")),
                ("error_code", Int16), ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )  # fmt: skip


class _OffsetFetchRequest7(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _OffsetFetchResponse7
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        ("topics", CompactArray(
            ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields),
        )),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )  # fmt: skip


class StableOffsetFetchRequest(Request[_OffsetFetchRequest7]):
    """Ask for a partition's committed offset, unless a transaction may still move it."""

    API_KEY = 9

    def __init__(self, group_id: str, partition: TopicPartition) -> None:
        self._group_id = group_id
        self._partition = partition

    def build(self, request_struct_class: type[_OffsetFetchRequest7]) -> _OffsetFetchRequest7:
        """Return the request for this one partition."""
        topic, partition = self._partition
        return request_struct_class(self._group_id, [(topic, [partition], {})], True, {})


async def stable_offset(consumer: Any, partition: TopicPartition) -> OffsetAndMetadata | None:
    """Return the group's committed offset; None if there is none. Raise `UnstableOffsetError` while it may change."""
    coordinator = consumer._coordinator
    request = StableOffsetFetchRequest(coordinator.group_id, partition)
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            return _committed(await coordinator._send_req(request))
        except NotCoordinatorForGroupError:
            coordinator.coordinator_dead()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_RETRY_S)


def _committed(response: Any) -> OffsetAndMetadata | None:
    """Return the offset of the only partition in the response; raise its error."""
    _raise_for(response.error_code)
    ((_, ((_, offset, _, metadata, error_code, _),), _),) = response.topics
    _raise_for(error_code)
    return None if offset == _UNKNOWN_OFFSET else OffsetAndMetadata(offset, metadata or "")


def _raise_for(error_code: int) -> None:
    if error_code == _UNSTABLE_OFFSET_COMMIT:
        raise UnstableOffsetError("the offset belongs to a transaction that has not ended")
    error = error_for_code(error_code)
    if error is not NoError:
        raise error()


# --- ends of partitions ----------------------------------------------------------------------------------------------


async def high_watermarks(consumer: Any, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the ends of partitions with what open transactions have written: `end_offsets` stops before it."""
    fetcher = copy.copy(consumer._fetcher)
    fetcher._isolation_level = READ_UNCOMMITTED
    return dict(await fetcher.end_offsets(list(partitions), _END_OFFSETS_TIMEOUT_MS))
