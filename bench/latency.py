"""Latency from the POST to subscribers and to ClickHouse, with every stage running in one stack."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer

from bench import http_load
from bench.benchmark_stack import BenchmarkStack, wait_ready, wait_until
from bench.measured_process import MeasuredProcess
from bench.workload import retyped
from eventpush.simulation.fleet import Shares, generate

_DEVICES = 5_000
_PROBES_PER_S = 100  # events per second that are looked up in ClickHouse
_GRACE_S = 10.0
_PAUSE_S = 0.05
_ALL_VALID = Shares(repeated=0, invalid=0, conflicting=0, unknown_type=0, same_instant=0, late=0, out_of_order=0)

Identity = tuple[str, str]  # IMEI, device_time on the topics


class _Names(msgspec.Struct):
    imei: str
    device_time: str


@dataclass(frozen=True)
class Latencies:
    """Latencies in milliseconds, ascending. An event that had not arrived counts with its time until the end."""

    ms: list[float]
    missing: int

    def percentile(self, percent: float) -> float:
        """Return the latency that so many percent of the events do not exceed; at least that if some are missing."""
        return self.ms[min(len(self.ms) - 1, int(len(self.ms) * percent / 100))]

    @property
    def note(self) -> str:
        """How many events these are, and how many of them count with less time than they took."""
        events = f"{len(self.ms):,} events"
        return (
            f"{events}, {self.missing:,} not there {_GRACE_S:g} s after the last was sent" if self.missing else events
        )


@dataclass
class Trace:
    """When each event was sent and first seen at either end (`time.perf_counter`)."""

    probes: set[str]
    sent: dict[Identity, float] = field(default_factory=dict)
    on_topic: dict[Identity, float] = field(default_factory=dict)
    in_clickhouse: dict[Identity, float] = field(default_factory=dict)

    def bodies(self, events: Iterator[tuple[Identity, bytes]]) -> Iterator[bytes]:
        """Yield the requests and note when each is sent."""
        for identity, request in events:
            self.sent[identity] = time.perf_counter()
            yield request

    @property
    def is_on_topic(self) -> bool:
        """Whether everything that was sent has been seen on the topic."""
        return self.on_topic.keys() >= self.sent.keys()

    def to_topic(self) -> Latencies:
        """Return the latencies of all events to the topic."""
        return _latencies(self.sent, self.on_topic)

    def to_row(self) -> Latencies:
        """Return the latencies of the probes' events to ClickHouse."""
        return _latencies({one: at for one, at in self.sent.items() if one[0] in self.probes}, self.in_clickhouse)


def _latencies(sent: Mapping[Identity, float], seen: Mapping[Identity, float]) -> Latencies:
    now = time.perf_counter()
    ms = sorted((seen.get(identity, now) - at) * 1_000 for identity, at in sent.items())
    return Latencies(ms, sum(identity not in seen for identity in sent))


async def start_stages(stack: BenchmarkStack) -> dict[str, MeasuredProcess]:
    """Start ClickHouse, then the ingress, a stream worker and a sink; return them by name when all are ready."""
    settings = stack.settings
    clickhouse = stack.start_clickhouse()
    await wait_until(lambda: "ready on" in clickhouse.log_file.read_text(), clickhouse, "ClickHouse")
    ports = {
        "ingress": settings.ingress_port,
        "streams": settings.streams_metrics_port,
        "sink": settings.sink_metrics_port,
    }
    started = {"clickhouse": clickhouse}
    for command, port in ports.items():
        started[command] = stack.start_command(command)
        await wait_ready(started[command], port)
    return started


def plan(seed: int, count: int, rate: float, event_types: int = 0) -> tuple[Trace, Iterator[tuple[Identity, bytes]]]:
    """Return a trace, and the events to send: valid, of a fleet of 5,000, of `event_types` types if given."""
    events = list(_events(seed, count, event_types))
    imeis = sorted({imei for (imei, _), _ in events})
    return Trace(set(imeis[: max(1, int(len(imeis) * _PROBES_PER_S / rate))])), iter(events)


@asynccontextmanager
async def watching(stack: BenchmarkStack, trace: Trace, topics: Sequence[str], poll_s: float) -> AsyncIterator[None]:
    """Note arrivals at both ends; at the end wait until everything that was sent has arrived, for at most 10 s.

    ClickHouse is asked every `poll_s` seconds, so a latency to the row may be that much too long.
    """
    over = asyncio.Event()
    watchers = [
        asyncio.create_task(_subscribe(stack, trace, topics, over)),
        asyncio.create_task(_query(stack, trace, poll_s, over)),
    ]
    try:
        yield
        await _all_seen(trace, watchers)
    finally:
        over.set()
        await asyncio.gather(*watchers)


def _events(seed: int, count: int, event_types: int) -> Iterator[tuple[Identity, bytes]]:
    for event in islice(generate(seed, _DEVICES, _ALL_VALID), count):
        sent = msgspec.json.decode(event.body)
        body = retyped(event, event_types).body if event_types else event.body
        yield (event.imei, sent["Device_Time"][:26] + "Z"), http_load.request(body)


async def _all_seen(trace: Trace, watchers: Sequence["asyncio.Task[None]"]) -> None:
    deadline = time.monotonic() + _GRACE_S
    probes = {identity for identity in trace.sent if identity[0] in trace.probes}
    while time.monotonic() < deadline and not any(watcher.done() for watcher in watchers):
        if trace.is_on_topic and trace.in_clickhouse.keys() >= probes:
            return
        await asyncio.sleep(_PAUSE_S)


async def _subscribe(stack: BenchmarkStack, trace: Trace, topics: Sequence[str], over: asyncio.Event) -> None:
    """Read the topics as a subscriber does: only committed records."""
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=stack.bootstrap, isolation_level="read_committed", auto_offset_reset="latest"
    )
    decode = msgspec.json.Decoder(_Names).decode
    await consumer.start()
    try:
        while not over.is_set():
            fetched = await consumer.getmany(timeout_ms=50)
            now = time.perf_counter()
            for records in fetched.values():
                for record in records:
                    found = decode(record.value)
                    trace.on_topic.setdefault((found.imei, found.device_time), now)
    finally:
        await consumer.stop()


async def _query(stack: BenchmarkStack, trace: Trace, poll_s: float, over: asyncio.Event) -> None:
    """Poll ClickHouse for the events of the probes."""
    imeis = ",".join(f"'{imei}'" for imei in sorted(trace.probes))
    columns = "imei, formatDateTime(device_time, '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC')"
    query = f"SELECT {columns} FROM telematics.events WHERE imei IN ({imeis}) FORMAT TabSeparated"
    async with aiohttp.ClientSession() as session:
        while not over.is_set():
            async with session.post(stack.settings.clickhouse_url, data=query) as reply:
                text = await reply.text()
                reply.raise_for_status()
            now = time.perf_counter()
            for line in text.splitlines():
                imei, device_time = line.split("\t")
                trace.in_clickhouse.setdefault((imei, device_time), now)
            await asyncio.sleep(poll_s)
