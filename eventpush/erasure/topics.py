"""Erase from Kafka: delete the keys of compacted topics, and tell when retention has removed the rest."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eventpush.erasure.subject import Subject
from eventpush.topic_reader import committed, offsets, records
from runtime.kafka.connection import connection
from runtime.kafka.topic_admin import admin, configurations, existing_topics, unreachable
from runtime.platform.settings import Settings
from schemas import topics
from schemas.device import Device
from schemas.erasure import Erasure, Pseudonyms, encode
from streams.state_restore import decode as decode_window
from streams.window import has_device

_PREFIX = "telematics."
#: Until an entry has reached every worker: they wait at most half a second for a record of the deny list.
SETTLE_S = 5.0
_PASSED_S, _PASSED_PAUSE_S = 60.0, 0.5
#: Brokers look for expired segments every 5 minutes, and delete the files a minute later (Kafka's defaults).
_SLACK_MS = 15 * 60_000
_NEVER_MS = 2**62

_decode_device = msgspec.json.Decoder(Device).decode


async def deny(settings: Settings, pseudonyms: Pseudonyms, subject: Subject, erased_at: str) -> None:
    """Put the subject on the deny list."""
    entry = {kind: Erasure(kind, pseudonyms.key_id, erased_at) for kind in subject.names}
    await put(settings, {pseudonyms.of(kind, name): entry[kind] for kind, name in subject.names.items()})


async def put(settings: Settings, entries: Mapping[str, Erasure]) -> None:
    """Put these entries, by digest, on the deny list."""
    await _write(settings, [(topics.ERASED, digest.encode(), encode(entry)) for digest, entry in entries.items()])


async def forget(settings: Settings, subject: Subject) -> dict[str, int]:
    """Delete the device from the compacted topics, and the driver's name from the registry; count the records written.

    A deleted key is written again by each run: it makes the broker close a segment that is due for compaction.
    """
    deletions: list[tuple[str, bytes, bytes | None]] = []
    if subject.imei is not None:
        key = subject.imei.encode()
        deletions += [(topic.name, key, None) for topic in (topics.DEVICES_TOPIC, topics.LATEST_TOPIC)]
    if subject.driver is not None:
        registry: dict[bytes, bytes | None] = {}
        async with aclosing(records(settings, topics.DEVICES)) as batches:
            async for _, found in batches:
                registry.update({record.key: record.value for record in found})
        deletions += [
            (topics.DEVICES, key, msgspec.json.encode(forgotten))
            for key, value in registry.items()
            if (forgotten := (device := _device(value)).without_drivers(lambda name: name == subject.driver))
            is not device
            and key != (subject.imei or "").encode()
        ]
    await _write(settings, deletions)
    written = [topic for topic, _, _ in deletions]
    return {topic: written.count(topic) for topic in sorted(set(written))}


async def passed(settings: Settings) -> list[str]:
    """Wait until no batch is in progress that was begun without the new entry; return the partitions still in one."""
    waiting = [
        (group, topic, partition)
        for group, topic in (
            (settings.streams_app_id, topics.RAW),
            (settings.sink_app_id, topics.EVENTS),
            (settings.sink_app_id, topics.DEAD_LETTER),
        )
        for partition in await _with_records(settings, group, topic)
    ]
    began = {(group, topic): await committed(settings, group, topic) for group, topic, _ in waiting}
    deadline = time.monotonic() + _PASSED_S
    while waiting and time.monotonic() < deadline:
        await asyncio.sleep(_PASSED_PAUSE_S)
        now = {(group, topic): await committed(settings, group, topic) for group, topic, _ in waiting}
        waiting = [
            (group, topic, partition)
            for group, topic, partition in waiting
            if now[group, topic].get(partition) == began[group, topic].get(partition)
        ]
    return [f"{group}: {topic}[{partition}]" for group, topic, partition in waiting]


async def _with_records(settings: Settings, group: str, topic: str) -> list[int]:
    """Return the partitions in which the group has records to read: a transaction's marker is none."""
    done = await committed(settings, group, topic)
    bounds = await offsets(settings, topic)
    begins = {partition: max(begin, done.get(partition, begin)) for partition, (begin, _) in bounds.items()}
    behind = {partition for partition, (_, end) in bounds.items() if begins[partition] < end}
    found: set[int] = set()
    if behind:
        async with aclosing(records(settings, topic, begins)) as batches:
            async for partition, _ in batches:
                found.add(partition)
                if found >= behind:
                    break
    return sorted(found)


@dataclass(frozen=True)
class Retention:
    """When a topic's records of a subject are gone, counted from the last one."""

    compacted: bool
    after_ms: int

    @classmethod
    def of(cls, config: Mapping[str, str]) -> "Retention":
        """Read the broker's configuration of the topic.

        Only closed segments are deleted or compacted: a record may wait for its segment to close before retention
        begins to count. A deleted key stays for `delete.retention.ms` after its compaction (KIP-534).
        """
        if config["cleanup.policy"] == "compact":
            after_ms = int(config["max.compaction.lag.ms"]) + int(config["delete.retention.ms"])
            return cls(compacted=True, after_ms=after_ms + _SLACK_MS)
        retention_ms = int(config["retention.ms"])
        after_ms = _NEVER_MS if retention_ms < 0 else int(config["segment.ms"]) + retention_ms
        return cls(compacted=False, after_ms=after_ms + _SLACK_MS)

    def gone_ms(self, last_ms: int) -> int | None:
        """Return when the records are gone, given the last one's time; ms since the epoch, None for never."""
        return None if self.after_ms >= _NEVER_MS else last_ms + self.after_ms


async def retentions(settings: Settings) -> dict[str, Retention]:
    """Return the retention of every topic of this installation, but for the deny list, as the brokers have it."""
    async with admin(settings) as client:
        names = [name for name in await existing_topics(client) if name.startswith(_PREFIX) and name != topics.ERASED]
        found = await configurations(client, sorted(names))
    return {
        name: Retention.of({key: value for key, (value, _) in config.items()}) for name, config in sorted(found.items())
    }


@dataclass(frozen=True)
class Traces:
    """What a topic still has about a subject."""

    records: int  # all of them
    current: int  # records that nothing will remove: the newest of a key, or written after the erasure
    last_ms: int


async def search(
    settings: Settings, topic: str, retention: Retention, subject: Subject, since_ms: int | None
) -> Traces:
    """Read all of a topic for the subject.

    None should be there from after `since_ms` (since the epoch), except on the raw topic: a device may go on sending.
    Without an erasure it is None, and all records count as current.
    """
    is_about = _is_about(topic, subject)
    newest: dict[tuple[int, bytes | None], bool] = {}
    found = current = last_ms = 0
    async with aclosing(records(settings, topic)) as batches:
        async for partition, batch in batches:
            for record in batch:
                about = is_about(record)
                if about:
                    found += 1
                    last_ms = max(last_ms, record.timestamp)
                    if not retention.compacted:
                        current += since_ms is None or (topic != topics.RAW and record.timestamp >= since_ms)
                if retention.compacted and (about or (partition, record.key) in newest):
                    newest[partition, record.key] = about and record.value is not None
    return Traces(found, current + sum(newest.values()), last_ms)


def _is_about(topic: str, subject: Subject) -> Callable[[Any], bool]:
    """Return what tells whether a record is about the subject."""
    imei, driver = subject.imei, subject.driver
    if topic == topics.WINDOW:
        return lambda record: imei is not None and has_device(decode_window(record.value)[0], int(imei))
    wanted = [rb"(?<![0-9])%s(?![0-9])" % imei.encode()] if imei is not None else []
    if driver is not None:
        wanted.append(rb'"driver":\s*' + re.escape(msgspec.json.encode(driver)))
    pattern = re.compile(b"|".join(wanted))
    return lambda record: bool(pattern.search(record.key or b"") or pattern.search(record.value or b""))


def _device(value: bytes | None) -> Device:
    try:
        return _decode_device(value or b"{}")
    except msgspec.MsgspecError:
        return Device()


async def _write(settings: Settings, written: list[tuple[str, bytes, bytes | None]]) -> None:
    """Write records (topic, key, value) and wait until all in-sync replicas have them."""
    try:
        async with AIOKafkaProducer(**connection(settings), acks="all", enable_idempotence=True) as producer:
            await asyncio.gather(*[await producer.send(topic, value, key) for topic, key, value in written])
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from None
