"""The topics in the broker: created as the registry says, and checked against it.

`configuration` is the one place that turns a `Topic` and the settings into the broker's configuration. A changed
partition count is refused: the window's state and the order of a device's events are kept by partition, and moving them
is the work of `eventpush topics grow`. What may be altered in place is (retention, density of the index); any other
difference is reported and left to the operator.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)

from runtime.adapters import aiokafka_admin
from runtime.kafka import raw_gate
from runtime.kafka.connection import connection
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.topics import RAW, Topic, all_topics, is_of_type, type_topic

_H = 3_600_000  # ms
_NO_BOUND = str(2**63 - 1)
_RECORDS_MAX_BYTES = 4 * 1024 * 1024  # of one batch of records: a full transaction's output for one partition
#: An index entry per MiB, not per 4 KiB: first writes to the index files of hundreds of logs cost a new broker
#: more than the records. A reader that starts at an offset scans at most one interval for it.
_INDEX_INTERVAL_BYTES = 1024 * 1024
_COMPACTED_SEGMENT_BYTES = 64 * 1024 * 1024  # only closed segments are compacted, and a restart reads all records
_COMPACTION_LAG_MAX_MS = 24 * _H  # an erased device's records are gone by then (KIP-354)
_SETTLE_S = 15.0
_REQUEST_TIMEOUT_MS = 10_000
_UNAUTHORIZED = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
_FROM_THE_TOPIC = 1  # DescribeConfigs' source of a value that was set for this topic (KIP-226)

#: What is altered when it differs; it changes no record that readers have yet to see.
ALTERABLE = frozenset({"retention.ms", "segment.ms", "segment.bytes", "index.interval.bytes", "max.compaction.lag.ms"})

State = Literal["created", "unchanged", "altered", "differs"]


@dataclass(frozen=True)
class Finding:
    """What was found of one topic, or done to it."""

    topic: str
    state: State
    partitions: int
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.topic}: {self.state}" + (f" ({self.detail})" if self.detail else "")


def configuration(topic: Topic, settings: Settings) -> dict[str, str]:
    """Return the broker's configuration of a topic, by Kafka's own names."""
    config = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "min.insync.replicas": str(settings.topic_min_insync_replicas),
        "max.message.bytes": str(_RECORDS_MAX_BYTES),
        "message.timestamp.type": "CreateTime",
        # A record's time is the arrival's; catching up after an outage, or on a wrong clock, it must not be refused.
        "message.timestamp.before.max.ms": _NO_BOUND,
        "message.timestamp.after.max.ms": _NO_BOUND,
        "index.interval.bytes": str(_INDEX_INTERVAL_BYTES),
    }
    if topic.window_retention:
        window_ms = settings.window_s * 1_000
        config["retention.ms"] = str(window_ms * 3 // 2 + 24 * _H)
        config["segment.ms"] = str(max(window_ms // 8, _H // 6))  # only closed segments are ever deleted
    elif topic.compacted:
        config["segment.bytes"] = str(_COMPACTED_SEGMENT_BYTES)
        config["max.compaction.lag.ms"] = str(_COMPACTION_LAG_MAX_MS)
    else:
        config["retention.ms"] = str(settings.topic_retention_h * _H)
    return config


async def ensure_topics(
    settings: Settings, on_line: Callable[[str], None] = lambda _: None, *, check_only: bool = False
) -> list[Finding]:
    """Create missing topics, check existing ones, alter what may be altered; report a line each to `on_line`.

    With `check_only` nothing changes, and a missing topic is an `OperatorError`, as is a partition count
    that is not `topic_partitions`, and when Kafka cannot be reached or refuses, or while the topics grow.
    """
    async with admin(settings) as client:
        existing = await existing_topics(client)
        wanted = wanted_topics(existing)
        if RAW in existing and await gate(client) is raw_gate.Gate.GROWING:
            raise raw_gate.GrowingError
        refuse_other_partition_counts(settings, partition_counts(existing))
        missing = [topic for name, topic in wanted.items() if name not in existing]
        if check_only and missing:
            names = ", ".join(topic.name for topic in missing)
            raise OperatorError(f"Kafka at {settings.kafka_bootstrap} has no topic {names}", "run `eventpush topics`")
        findings = await create(client, settings, missing)
        present = [topic for name, topic in wanted.items() if name in existing]
        findings += await _compare(client, settings, present, existing, may_alter=not check_only)
    for finding in findings:
        on_line(str(finding))
    return findings


def wanted_topics(existing: Iterable[str]) -> dict[str, Topic]:
    """Return every topic that there must be, given the names of those that exist: types that appeared are added."""
    return {topic.name: topic for topic in all_topics()} | {
        name: type_topic(name) for name in existing if is_of_type(name)
    }


def partition_counts(existing: Mapping[str, Sequence[object]]) -> dict[str, int]:
    """Return the partitions of the topics that must all have the same number, as far as they exist."""
    wanted = wanted_topics(existing).values()
    return {topic.name: len(existing[topic.name]) for topic in wanted if topic.name in existing and not topic.is_table}


async def gate(client: AIOKafkaAdminClient) -> raw_gate.Gate | None:
    """Return how the raw topic's gate is closed; None if it is open."""
    return raw_gate.gate_of((await configurations(client, [RAW]))[RAW][raw_gate.KEY][0])


async def create(client: AIOKafkaAdminClient, settings: Settings, topics: Iterable[Topic]) -> list[Finding]:
    """Create topics and wait until each partition has a leader. A topic that exists meanwhile is no error."""
    new = [
        NewTopic(t.name, settings.topic_partitions, settings.topic_replication_factor, None, configuration(t, settings))
        for t in topics
    ]
    if not new:
        return []
    response = await client.create_topics(new)
    for name, code, message in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise OperatorError(
                f"topic {name} cannot be created ({message or for_code(code).__name__})",
                "fix the broker's configuration or the settings EVENTPUSH_TOPIC_…, then run `eventpush topics`",
            )
    await _settled(client, {topic.name for topic in new})
    detail = f"{settings.topic_partitions} partitions"
    return [Finding(topic.name, "created", settings.topic_partitions, detail) for topic in new]


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client; raise `OperatorError` for what Kafka refuses or does not answer inside the block."""
    client = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await client.start()
        yield client
    except (KafkaError, TimeoutError, OSError) as error:
        raise unreachable(settings, error) from None
    finally:
        await client.close()


def unreachable(settings: Settings, error: BaseException) -> OperatorError:
    """Return the error for a Kafka that did not answer, or not as it should."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix(f"{type(error).__name__}: ")
    where = f"Kafka at EVENTPUSH_KAFKA_BOOTSTRAP={settings.kafka_bootstrap}"
    if isinstance(error, _UNAUTHORIZED):
        return OperatorError(f"{where} refuses this user ({reason})", "`eventpush check` names the ACL that is missing")
    return OperatorError(
        f"{where} cannot be used ({reason})",
        "start it (`eventpush up` brings one along) or set the variable to where it is",
    )


async def existing_topics(client: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """Return the partitions of every topic, by topic."""
    return {topic["topic"]: topic["partitions"] for topic in await client.describe_topics()}


async def _settled(client: AIOKafkaAdminClient, names: set[str]) -> None:
    async def have_leaders() -> bool:
        existing = await existing_topics(client)
        return all(name in existing and all(p["leader"] >= 0 for p in existing[name]) for name in names)

    await until(have_leaders, "some new topics have no leader")


async def until(condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    """Wait until `condition` holds: brokers take time to apply what they have accepted."""
    deadline = time.monotonic() + _SETTLE_S
    while not await condition():
        if time.monotonic() > deadline:
            raise OperatorError(f"{otherwise} after {_SETTLE_S:g} s", "see the brokers' logs")
        await asyncio.sleep(0.1)


def refuse_other_partition_counts(settings: Settings, counts: Mapping[str, int]) -> None:
    """Raise `OperatorError` if a topic's number of partitions is not `topic_partitions`."""
    others = {name: count for name, count in counts.items() if count != settings.topic_partitions}
    if not others:
        return
    wanted, agreed = settings.topic_partitions, set(counts.values())
    if len(agreed) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in sorted(others.items()))
        remedy = "drain the pipeline and begin with new topics"
    elif wanted < min(agreed):
        found = f"the topics have {min(agreed)}"
        remedy = f"set it back to {min(agreed)}; there is no way to fewer but new topics"
    else:
        found = f"the topics have {min(agreed)}"
        remedy = f"set it back to {min(agreed)}, or run `eventpush topics grow --partitions {wanted}`"
    raise OperatorError(
        f"EVENTPUSH_TOPIC_PARTITIONS={wanted}, but {found}; the window's state and the order of a "
        "device's events are kept by partition, so a changed count would let duplicates in",
        remedy,
    )


async def _compare(
    client: AIOKafkaAdminClient,
    settings: Settings,
    topics: list[Topic],
    existing: Mapping[str, list[dict[str, Any]]],
    *,
    may_alter: bool,
) -> list[Finding]:
    actual = await configurations(client, [topic.name for topic in topics])
    findings = []
    for topic in topics:
        differing = {
            key: (actual[topic.name].get(key, ("nothing", 0))[0], value)
            for key, value in configuration(topic, settings).items()
            if actual[topic.name].get(key, ("nothing", 0))[0] != value
        }
        replicas = min((len(p["replicas"]) for p in existing[topic.name]), default=0)
        altered = may_alter and bool(ALTERABLE & set(differing))
        if altered:
            await alter(client, topic.name, {k: v[1] for k, v in differing.items() if k in ALTERABLE})
        said = [f"{k} is {v[0]}, wanted {v[1]}" for k, v in differing.items() if not (altered and k in ALTERABLE)]
        if replicas != settings.topic_replication_factor:
            said.append(f"{replicas} replicas, wanted {settings.topic_replication_factor}")
        changed = [f"{k} from {v[0]} to {v[1]}" for k, v in differing.items() if altered and k in ALTERABLE]
        state: State = "differs" if said else "altered" if changed else "unchanged"
        findings.append(Finding(topic.name, state, settings.topic_partitions, "; ".join(changed + said)))
    return findings


async def configurations(client: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return each topic's configuration: value and source by key."""
    if not names:
        return {}
    responses = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for response in responses:
        for code, message, _type, name, entries in response.resources:
            if code:
                raise for_code(code)(message)
            found[name] = {entry[0]: (entry[1], entry[3]) for entry in entries}
    return found


async def alter(client: AIOKafkaAdminClient, name: str, changes: Mapping[str, str | None]) -> None:
    """Set values of a topic's configuration, None for the broker's default, and wait until every broker has them.

    AlterConfigs replaces all that was set for the topic, so what stays is sent along.
    """
    actual = (await configurations(client, [name]))[name]
    kept = {key: value for key, (value, source) in actual.items() if source == _FROM_THE_TOPIC and key not in changes}
    config = kept | {key: value for key, value in changes.items() if value is not None}
    for response in await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)]):
        for code, message, *_ in response.resources:
            if code:
                raise for_code(code)(message)

    async def takes_effect() -> bool:
        brokers = [broker["node_id"] for broker in (await client.describe_cluster())["brokers"]]
        values = [await aiokafka_admin.topic_values(client, broker, name) for broker in brokers]
        return all(now.get(key) == value for now in values for key, value in config.items())

    await until(takes_effect, f"{name} still has its old configuration")
