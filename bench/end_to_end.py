"""From the POST to the subscriber and to the row: latencies with everything running, at several rates."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer

from bench import http_load
from bench.results import Section
from bench.stack import Stack, stack, wait_ready, wait_until
from eventpush.simulation.fleet import Shares, generate
from schemas import topics
from schemas.event_types import KINDS

_RATES = (100, 1_000, 4_000)
_DEVICES = 5_000
_CONNECTIONS = 64
_POLL_S = 0.05
_PROBES_PER_S = 100  # so many events a second are looked for in ClickHouse
_GRACE_S = 10.0
_ALL_VALID = Shares(repeated=0, invalid=0, conflicting=0, unknown_type=0, same_instant=0, late=0, out_of_order=0)

Identity = tuple[str, str]  # IMEI, device_time on the topics


class _Names(msgspec.Struct):
    imei: str
    device_time: str


@dataclass
class _Trace:
    """When each event was sent, and when it was first seen at either end (`time.perf_counter`)."""

    probes: set[str]
    sent: dict[Identity, float] = field(default_factory=dict)
    on_topic: dict[Identity, float] = field(default_factory=dict)
    in_clickhouse: dict[Identity, float] = field(default_factory=dict)

    def bodies(self, events: Iterator[tuple[Identity, bytes]]) -> Iterator[bytes]:
        for identity, request in events:
            self.sent[identity] = time.perf_counter()
            yield request

    def latencies_ms(self, seen: dict[Identity, float]) -> list[float]:
        return sorted((at - self.sent[identity]) * 1_000 for identity, at in seen.items() if identity in self.sent)


async def measure(*, quick: bool) -> Section:
    """One stack, one rate after the other."""
    section = Section("end_to_end")
    duration_s = 5.0 if quick else 20.0
    async with stack() as made:
        await _start_all(made)
        for number, rate in enumerate(_RATES):
            trace = await _run(made, rate, duration_s, seed=10 + number)
            _add(section, trace, rate)
    return section


async def _start_all(made: Stack) -> None:
    settings = made.settings
    clickhouse = made.start_clickhouse()
    await wait_until(lambda: "ready on" in clickhouse.log_file.read_text(), clickhouse, "ClickHouse")
    ports = {
        "ingress": settings.ingress_port,
        "streams": settings.streams_metrics_port,
        "sink": settings.sink_metrics_port,
    }
    for command, port in ports.items():
        await wait_ready(made.start_command(command), port)


async def _run(made: Stack, rate: int, duration_s: float, seed: int) -> _Trace:
    events = list(_events(seed, int(rate * (duration_s + 3))))
    imeis = sorted({imei for (imei, _), _ in events})
    trace = _Trace(set(imeis[: max(1, len(imeis) * _PROBES_PER_S // rate)]))
    over = asyncio.Event()
    watchers = [asyncio.create_task(_subscribe(made, trace, over)), asyncio.create_task(_query(made, trace, over))]
    try:
        bodies = trace.bodies(iter(events))
        await http_load.paced(made.settings.ingress_port, bodies, _CONNECTIONS, rate, 2.0)  # warm up
        trace.sent.clear()
        await http_load.paced(made.settings.ingress_port, bodies, _CONNECTIONS, rate, duration_s)
        await _all_seen(trace, watchers)
    finally:
        over.set()
        await asyncio.gather(*watchers)
    return trace


def _events(seed: int, count: int) -> Iterator[tuple[Identity, bytes]]:
    for event in islice(generate(seed, _DEVICES, _ALL_VALID), count):
        sent = msgspec.json.decode(event.body)
        yield (event.imei, sent["Device_Time"][:26] + "Z"), http_load.request(event.body)


async def _all_seen(trace: _Trace, watchers: Sequence["asyncio.Task[None]"]) -> None:
    deadline = time.monotonic() + _GRACE_S
    probes = {identity for identity in trace.sent if identity[0] in trace.probes}
    while time.monotonic() < deadline and not any(watcher.done() for watcher in watchers):
        if trace.on_topic.keys() >= trace.sent.keys() and trace.in_clickhouse.keys() >= probes:
            return
        await asyncio.sleep(_POLL_S)


async def _subscribe(made: Stack, trace: _Trace, over: asyncio.Event) -> None:
    """Read all types' topics as a team would: committed records only."""
    names = [topics.of_type(event) for event in KINDS]
    consumer = AIOKafkaConsumer(
        *names, bootstrap_servers=made.bootstrap, isolation_level="read_committed", auto_offset_reset="latest"
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


async def _query(made: Stack, trace: _Trace, over: asyncio.Event) -> None:
    """Asks ClickHouse again and again which of the probes' events can be selected."""
    imeis = ",".join(f"'{imei}'" for imei in sorted(trace.probes))
    columns = "imei, formatDateTime(device_time, '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC')"
    query = f"SELECT {columns} FROM telematics.events WHERE imei IN ({imeis}) FORMAT TabSeparated"  # noqa: S608 - ours
    async with aiohttp.ClientSession() as session:
        while not over.is_set():
            async with session.post(made.settings.clickhouse_url, data=query) as reply:
                text = await reply.text()
                reply.raise_for_status()
            now = time.perf_counter()
            for line in text.splitlines():
                imei, device_time = line.split("\t")
                trace.in_clickhouse.setdefault((imei, device_time), now)
            await asyncio.sleep(_POLL_S)


def _add(section: Section, trace: _Trace, rate: int) -> None:
    ends = (
        ("readable on the type's topic", trace.on_topic, 150.0),
        ("selectable in ClickHouse", trace.in_clickhouse, 1_500.0),
    )
    for where, seen, target in ends:
        latencies_ms = trace.latencies_ms(seen)
        p50, p99 = (latencies_ms[int(len(latencies_ms) * share)] for share in (0.5, 0.99))
        note = f"{len(latencies_ms):,} events"
        section.add(f"POST → {where}, {rate:,} events/s: p50", p50, "ms", note=note)
        at_most = {"target": target, "sense": "at_most"} if rate == 1_000 else {}
        section.add(f"POST → {where}, {rate:,} events/s: p99", p99, "ms", note=note, **at_most)
        section.series.setdefault(where, []).append([rate, p50, p99])
