"""The check that a peer does the stream worker's work: from the same bytes the same events and dead letters.

A peer that does less is none. What it may leave out is declared with it, and compared in everything else.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import workload
from bench.benchmark_stack import BenchmarkStack, benchmark_stack
from bench.native_peers import NativePeer
from bench.sampling import follow, from_log, from_metrics
from eventpush.simulation.fleet import generate
from schemas import topics

_EVENTS = 20_000
_TIMEOUT_S = 120
Position = tuple[int, int]  # partition and offset of the raw record


class DifferentWorkError(Exception):
    """A peer's outcome is not the stream worker's; the message names the first difference."""


@dataclass(frozen=True)
class Outcome:
    """What was made of the raw topic: values of events on the one topic and on their types', and of dead letters."""

    events: Mapping[Position, Mapping[str, Any]]
    by_type: Mapping[Position, tuple[str, Mapping[str, Any]]]
    dead_letters: Mapping[str, list[tuple[str, str]]]  # code and field of the reasons, by payload


async def require_same_work(peers: Iterable[NativePeer], counter: str) -> None:
    """Let the worker and each peer process the same small input; raise `DifferentWorkError`."""
    async with benchmark_stack() as stack:
        planned = islice(generate(workload.SEED, workload.DEVICES), _EVENTS)
        await workload.fill(stack.bootstrap, topics.RAW, workload.encode(planned, stack.settings.topic_partitions))
        worker = stack.start_command("streams")
        await follow(from_metrics(stack.settings.streams_metrics_port, counter, worker), [worker], _EVENTS, _TIMEOUT_S)
        await worker.stop()
        of_types = {topics.of_type(name): name for name in workload.EVENT_TYPES}
        ours = await _outcome(stack, topics.EVENTS, topics.DEAD_LETTER, of_types)
        for peer in peers:
            child = await start(stack, peer)
            await follow(from_log(child.log_file), [child], _EVENTS, _TIMEOUT_S)
            await child.stop()
            of_types = {type_topic(peer.name, name): name for name in workload.EVENT_TYPES}
            theirs = await _outcome(stack, f"peer.{peer.name}.events", f"peer.{peer.name}.dead", of_types)
            compare(ours, theirs, peer)


async def start(stack: BenchmarkStack, peer: NativePeer) -> Any:
    """Start a peer in the stack, with its topics."""
    types = [type_topic(peer.name, name) for name in workload.EVENT_TYPES]
    await stack.create_topics(f"peer.{peer.name}.events", f"peer.{peer.name}.dead", *types)
    return stack.start(peer.name, *peer.command, stack.bootstrap, str(stack.home / peer.name))


def type_topic(peer: str, event: str) -> str:
    """Return the topic of a peer for a type of events."""
    return f"peer.{peer}.event.{event}"


def compare(ours: Outcome, theirs: Outcome, peer: NativePeer) -> None:
    """Raise `DifferentWorkError` unless the peer's outcome is ours, but for the fields that it leaves out."""
    for what, expected, found in (
        ("events", ours.events.keys(), theirs.events.keys()),
        ("events on the types' topics", ours.by_type.keys(), theirs.by_type.keys()),
        ("dead letters", ours.dead_letters.keys(), theirs.dead_letters.keys()),
    ):
        if expected != found:
            example = next(iter(expected ^ found))
            raise DifferentWorkError(f"{peer.label}: {len(found)} {what} instead of {len(expected)}; see {example}")
    for position, event in ours.events.items():
        name, of_type = theirs.by_type[position]
        if name != event["event"] or of_type != theirs.events[position]:
            raise DifferentWorkError(f"{peer.label}: the event from {position} differs on its type's topic")
        for field, value in event.items():
            if field not in peer.left_out and theirs.events[position].get(field) != value:
                found_value = theirs.events[position].get(field)
                raise DifferentWorkError(f"{peer.label}: {field} is {found_value!r} instead of {value!r}: {position}")
    for payload, reasons in ours.dead_letters.items():
        if theirs.dead_letters[payload] != reasons:
            raise DifferentWorkError(f"{peer.label}: {theirs.dead_letters[payload]} instead of {reasons}: {payload}")


async def _outcome(stack: BenchmarkStack, events: str, dead: str, of_types: Mapping[str, str]) -> Outcome:
    all_events, letters = await _values(stack, events), await _values(stack, dead)
    by_type = [(name, value) for topic, name in of_types.items() for value in await _values(stack, topic)]
    outcome = Outcome(
        {_position(value): value for value in all_events},
        {_position(value): (name, value) for name, value in by_type},
        {letter["payload"]: sorted((one["code"], one["field"]) for one in letter["reasons"]) for letter in letters},
    )
    if (len(outcome.events), len(outcome.by_type), len(outcome.dead_letters)) != (
        len(all_events), len(by_type), len(letters),
    ):  # fmt: skip
        raise DifferentWorkError(f"{events}: a raw record has more than one event or dead letter")
    return outcome


def _position(event: Mapping[str, Any]) -> Position:
    return event["raw"]["partition"], event["raw"]["offset"]


async def _values(stack: BenchmarkStack, topic: str) -> list[dict[str, Any]]:
    """Read all committed values of a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(stack.settings.topic_partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        values = list[dict[str, Any]]()
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [json.loads(record.value) for record in records]
        return values
    finally:
        await consumer.stop()
