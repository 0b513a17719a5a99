"""Whether somebody moved a consumer group: a group that was moved ahead skips records."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing

import msgspec

from eventpush import topic_reader
from eventpush.checking.result import Finding
from eventpush.clickhouse_client import connected
from eventpush.erasure.subject import read_deny_list
from runtime.platform.settings import Settings
from schemas import account, topics

_TAIL_OFFSETS = 200  # of the account, and before a committed offset: they hold at least one record


class Moved(msgspec.Struct, frozen=True):
    """A partition whose group was moved ahead: the offsets from `first` up to, not including, `next` are skipped."""

    group: str
    topic: str
    partition: int
    first: int
    next: int

    def __str__(self) -> str:
        where = f"{self.topic} partition {self.partition}"
        return f"group {self.group} skips offsets {self.first} to {self.next - 1} of {where}"


async def check(settings: Settings) -> Finding:
    """Compare the committed offsets with the account and with ClickHouse's rows."""
    # The order matters: what is read later may be ahead of what was read before, never behind.
    committed = await topic_reader.committed(settings, settings.streams_app_id, topics.RAW)
    moved = moved_streams(settings.streams_app_id, committed, await _processed(settings))
    if not moved:
        moved = await _moved_sink(settings)
    if not moved:
        return "ok", f"{settings.streams_app_id} and {settings.sink_app_id} stand where their output ends"
    first = moved[0]
    return "failed", (
        f"{'; '.join(map(str, moved))}: stop its workers, run `kafka-consumer-groups.sh --bootstrap-server"
        f" {settings.kafka_bootstrap} --group {first.group} --topic {first.topic}:{first.partition} --reset-offsets"
        f" --to-offset {first.first} --execute`, and start them again; what is processed twice is dropped"
    )


def moved_streams(group: str, committed: Mapping[int, int], processed: Mapping[int, int]) -> list[Moved]:
    """Return the partitions whose committed offset is ahead of what the account says is processed. Pure."""
    return [
        Moved(group, topics.RAW, partition, processed[partition], offset)
        for partition, offset in sorted(committed.items())
        if partition in processed and offset > processed[partition]
    ]


async def _processed(settings: Settings) -> dict[int, int]:
    """Return the raw offset up to which each partition's newest summary covers; without one, it is left out."""
    offsets = await topic_reader.offsets(settings, topics.ACCOUNT)
    begins = {partition: max(begin, end - _TAIL_OFFSETS) for partition, (begin, end) in offsets.items()}
    found: dict[int, int] = {}
    async with aclosing(topic_reader.records(settings, topics.ACCOUNT, begins)) as batches:
        async for partition, records in batches:
            for record in records:
                found[partition] = max(found.get(partition, 0), account.decode(record.value).next_offset)
    return found


class _Id(msgspec.Struct):
    event_id: str


_id = msgspec.json.Decoder(_Id).decode


async def _moved_sink(settings: Settings) -> list[Moved]:
    """Return the partitions of the events topic whose last committed records have no row."""
    committed = await topic_reader.committed(settings, settings.sink_app_id, topics.EVENTS)
    before = await _before(settings, committed)
    ids = {_id(value).event_id for records in before.values() for value in records.values()}
    stored = await _stored(settings, sorted(ids)) if ids else set()
    return moved_sink(
        settings.sink_app_id,
        committed,
        {
            partition: {offset: _id(value).event_id in stored for offset, value in records.items()}
            for partition, records in before.items()
        },
    )


def moved_sink(group: str, committed: Mapping[int, int], stored: Mapping[int, Mapping[int, bool]]) -> list[Moved]:
    """Return the partitions whose last records before the committed offset are not stored. Pure.

    `stored` says of each record, by partition and offset, whether it has a row.
    """
    moved = []
    for partition, of in sorted(stored.items()):
        if of and not of[max(of)]:
            after_stored = max((offset + 1 for offset, has_row in of.items() if has_row), default=min(of))
            moved.append(Moved(group, topics.EVENTS, partition, after_stored, committed[partition]))
    return moved


async def _before(settings: Settings, committed: Mapping[int, int]) -> dict[int, dict[int, bytes]]:
    """Return the last records before each committed offset, by partition and offset; erased ones have no row."""
    erased = await read_deny_list(settings)
    offsets = await topic_reader.offsets(settings, topics.EVENTS)
    begins = {
        partition: max(begin, committed.get(partition, end) - _TAIL_OFFSETS)
        for partition, (begin, end) in offsets.items()
    }
    found: dict[int, dict[int, bytes]] = {partition: {} for partition in committed}
    unread = {partition for partition, offset in committed.items() if begins.get(partition, offset) < offset}
    async with aclosing(topic_reader.records(settings, topics.EVENTS, begins)) as batches:
        async for partition, records in batches:
            for record in records:
                if record.offset < committed.get(partition, 0):
                    if erased.is_about(record.value):
                        continue
                    found[partition][record.offset] = record.value
                else:
                    unread.discard(partition)
            if not unread:
                break
    return found


async def _stored(settings: Settings, ids: Sequence[str]) -> set[str]:
    """Return which of the events have a row, or are dead letters of the sink."""
    async with connected(settings) as client:
        found = await client.query(
            "SELECT toString(stored.event_id) FROM telematics.events_store AS stored"
            " WHERE stored.event_id IN {ids:Array(UUID)} UNION ALL SELECT JSONExtractString(payload, 'event_id')"
            " FROM telematics.dead_letters_store WHERE stage = 'sink'",
            parameters={"ids": list(ids)},
        )
    return {str(event_id) for (event_id,) in found.result_rows}
