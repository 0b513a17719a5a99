"""Requests that aiokafka's admin client lacks: what a user may do (KIP-430), and the brokers' disks (KIP-827).

And those that it sends to any broker, or whose answer it leaves as it is: configurations, members of a group.

The structures follow Kafka's message definitions (MetadataRequest.json, DescribeGroupsRequest.json,
DescribeLogDirsRequest.json). `PRIVATE_NAMES` is checked like that of `runtime/adapters/aiokafka.py`.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest, DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {"aiokafka.admin.client:AIOKafkaAdminClient": ("_send_request",)}

#: Kafka's AclOperation by the name that `kafka-acls.sh` uses; the code is the bit in a set of authorized operations.
OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8, "ClusterAction": 9,
    "DescribeConfigs": 10, "AlterConfigs": 11, "IdempotentWrite": 12,
}  # fmt: skip


class LogDir(NamedTuple):
    """A directory of a broker, with the size and the free space of its disk in bytes."""

    broker: int
    path: str
    size_bytes: int
    free_bytes: int


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataRequest(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _DescribeTopics(Request[_MetadataRequest]):
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        return request_struct_class(self._topics, False, False, True)


class _GroupsRequest(RequestStruct):
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3  # aiokafka's own request names the response of version 2
    SCHEMA = DescribeGroupsRequest_v3.SCHEMA


class _DescribeGroup(Request[_GroupsRequest]):
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupsRequest]) -> _GroupsRequest:
        return request_struct_class([self._group], True)


class _LogDirsResponse(Response):
    API_KEY = 35
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "results",
            CompactArray(
                ("error_code", Int16),
                ("log_dir", CompactString("utf-8")),
                (
                    "topics",
                    CompactArray(
                        ("name", CompactString("utf-8")),
                        (
                            "partitions",
                            CompactArray(
                                ("partition", Int32),
                                ("size", Int64),
                                ("offset_lag", Int64),
                                ("is_future", Boolean),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("total_bytes", Int64),
                ("usable_bytes", Int64),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _LogDirsRequest(RequestStruct):
    API_KEY = 35
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _LogDirsResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeLogDirs(Request[_LogDirsRequest]):
    API_KEY = 35

    def build(self, request_struct_class: type[_LogDirsRequest]) -> _LogDirsRequest:
        return request_struct_class([], {})  # of no topic: the directories alone


async def topic_operations(client: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return what the client's user may do with each topic; a topic that does not exist is left out."""
    response = await client._send_request(_DescribeTopics(list(topics)))
    refused = TopicAuthorizationFailedError.errno
    return {
        topic["topic"]: _named(0 if topic["error_code"] == refused else topic["authorized_operations"])
        for topic in response.to_object()["topics"]
        if topic["error_code"] in (0, refused)
    }


async def group_operations(client: AIOKafkaAdminClient, group: str) -> frozenset[str]:
    """Return what the client's user may do with a consumer group, which need not exist."""
    try:
        return _named((await _described_group(client, group))["authorized_operations"])
    except GroupAuthorizationFailedError:
        return frozenset()


async def group_members(client: AIOKafkaAdminClient, group: str) -> int:
    """Return how many members a consumer group has; 0 if there is no such group."""
    return len((await _described_group(client, group))["members"])


async def _described_group(client: AIOKafkaAdminClient, group: str) -> dict[str, Any]:
    coordinator = await client.find_coordinator(group)
    response = await client._send_request(_DescribeGroup(group), coordinator)
    found: dict[str, Any] = response.to_object()["groups"][0]
    if found["error_code"]:
        raise for_code(found["error_code"])(f"group {group} cannot be described")
    return found


async def may_write_transactions(client: AIOKafkaAdminClient, transactional_id: str) -> bool:
    """Return whether the client's user may use a transactional id, which Kafka describes to nobody.

    It asks to abort the transaction of a producer that cannot exist: authorization comes first, then it is refused.
    """
    request = EndTxnRequest(
        transactional_id=transactional_id, producer_id=-1, producer_epoch=-1, transaction_result=False
    )
    response = await client._send_request(request)
    return bool(response.error_code != TransactionalIdAuthorizationFailed.errno)


async def topic_values(client: AIOKafkaAdminClient, broker: int, topic: str) -> dict[str, str]:
    """Return a topic's configuration as this broker has it."""
    request = DescribeConfigsRequest([(ConfigResourceType.TOPIC, topic, None)], include_synonyms=False)
    response = await client._send_request(request, broker)
    (found,) = response.resources
    code, message, _type, _name, entries = found
    if code:
        raise for_code(code)(message)
    return {entry[0]: entry[1] for entry in entries}


async def log_dirs(client: AIOKafkaAdminClient) -> list[LogDir] | None:
    """Return the directories of all brokers; None if the user may not see them, or the brokers are older than 3.3."""
    found = []
    for broker in (await client.describe_cluster())["brokers"]:
        try:
            response = await client._send_request(_DescribeLogDirs(), broker["node_id"])
        except (IncompatibleBrokerVersion, NotImplementedError):  # aiokafka's errors for a version that both lack
            return None
        if response.error_code == ClusterAuthorizationFailedError.errno:
            return None
        if response.error_code:
            raise for_code(response.error_code)("the brokers' disks cannot be described")
        found += [_log_dir(broker["node_id"], result) for result in response.to_object()["results"]]
    return found


def _log_dir(broker: int, result: dict[str, Any]) -> LogDir:
    return LogDir(broker, result["log_dir"], result["total_bytes"], result["usable_bytes"])


def _named(operations: int) -> frozenset[str]:
    return frozenset(name for name, code in OPERATIONS.items() if operations & 1 << code)
