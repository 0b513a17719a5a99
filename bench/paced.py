"""The cost of every process at a steady rate, with the latency to the topic and to the row.

`make bench ARGS=paced` measures all combinations. One by itself, printed and not stored:

    python -m bench.paced --rate 1000 --partitions 64 --types 8 --seconds 30
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import aiohttp
import click

from bench import http_load, latency
from bench.benchmark_stack import BenchmarkStack, benchmark_stack, scrape
from bench.http_load import LoadResult
from bench.latency import Trace
from bench.measured_process import MeasuredProcess
from bench.results import Section
from runtime.adapters import aiokafka
from schemas import topics

_RATES, _PARTITIONS, _TYPES = (100, 1_000, 5_000), (4, 16, 64), (8, 150)
_SECONDS, _WARM_UP_S = 30.0, 8.0
_ARRIVAL_S = 180.0
_CONNECTIONS = 64
_POLL_S = 0.2
_ANSWER_S = 2.0  # the sender gives up then
_PROCESSES = ("kafka", "ingress", "streams", "sink", "clickhouse")
_PARTS = "SELECT value FROM system.events WHERE event = 'MergeTreeDataWriterBlocks'"

#: Limits at 1,000 events/s with 8 types, by (figure, partitions).
_TARGETS: dict[tuple[str, int], float] = {
    ("streams", 4): 0.12,
    ("streams", 64): 0.12,
    ("to the topic, p99", 4): 150,
    ("to the topic, p99", 64): 150,
    **{("inserts", partitions): 3 for partitions in _PARTITIONS},
    **{("to the row, p99", partitions): 1_500 for partitions in _PARTITIONS},
    ("unanswered", 64): 0,
}


@dataclass(frozen=True)
class Load:
    """A steady load, and the layout that it meets."""

    rate: int  # events per second
    partitions: int
    event_types: int

    def __str__(self) -> str:
        return f"{self.rate:,} events/s, {self.partitions} partitions, {self.event_types} types"


@dataclass(frozen=True)
class _Usage:
    """What the processes have used and done so far."""

    at_s: float
    cpu_s: dict[str, float]
    events: float
    transactions: float
    inserts: float
    rows: float
    parts: float


async def measure(*, quick: bool) -> Section:
    """Measure every combination on a fresh stack; when quick, only 1,000 events/s of 8 types."""
    section = Section("paced")
    every = product((1_000,), (4, 64), (8,)) if quick else product(_RATES, _PARTITIONS, _TYPES)
    for load in (Load(*values) for values in every):
        click.echo(f"  {load} …", err=True)
        try:
            await measure_load(section, load, 10.0 if quick else _SECONDS)
        except (OSError, RuntimeError) as problem:  # the other loads are worth measuring
            click.echo(f"  {load}: not measured: {problem}", err=True)
    return section


async def measure_load(section: Section, load: Load, seconds: float) -> None:
    """Add the figures of one load."""
    async with benchmark_stack(topic_partitions=load.partitions) as stack:
        processes = {"kafka": stack.kafka} | await latency.start_stages(stack)
        trace, events = latency.plan(7, int(load.rate * (seconds + 2 * _WARM_UP_S + 1)), load.rate, load.event_types)
        port, bodies = stack.settings.ingress_port, trace.bodies(events)
        async with latency.watching(stack, trace, [topics.EVENTS], _POLL_S):
            await _warm_up(load, port, bodies, trace)
            trace.sent.clear()
            begin = await _usage(stack, processes)
            outcome = await http_load.paced(port, bodies, _CONNECTIONS, load.rate, seconds)
            end = await _usage(stack, processes)
        _add(section, load, begin, end)
        _add_latencies(section, load, trace)
        _add_target(section, load, "unanswered", "requests without an answer in 2 s", _unanswered(outcome), "requests")


async def _warm_up(load: Load, port: int, bodies: Iterator[bytes], trace: Trace) -> None:
    """Send until every topic has been created and used, and everything has arrived; then for a while at the rate.

    The first events of 150 types create thousands of partitions. That is the cost of the first minute, not of the load.
    """
    await http_load.paced(port, bodies, _CONNECTIONS, load.rate, _WARM_UP_S)
    deadline_s = time.monotonic() + _ARRIVAL_S
    while not trace.is_on_topic:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the events of the warm-up had not arrived after {_ARRIVAL_S:g} s")
        await asyncio.sleep(_POLL_S)
    await http_load.paced(port, bodies, _CONNECTIONS, load.rate, _WARM_UP_S)


async def _usage(stack: BenchmarkStack, processes: dict[str, MeasuredProcess]) -> _Usage:
    streams = await asyncio.to_thread(scrape, stack.settings.streams_metrics_port)
    sink = await asyncio.to_thread(scrape, stack.settings.sink_metrics_port)
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.settings.clickhouse_url, data=_PARTS) as reply,
    ):
        parts = float((await reply.text()).strip() or 0)
    return _Usage(
        time.monotonic(),
        {name: processes[name].cpu_s() for name in _PROCESSES},
        streams.get("eventpush_streams_events_total", 0),
        streams.get("eventpush_streams_transaction_seconds_count", 0),
        sink.get("eventpush_sink_insert_seconds_count", 0),
        sink.get("eventpush_sink_rows_total", 0),
        parts,
    )


def _add(section: Section, load: Load, begin: _Usage, end: _Usage) -> None:
    seconds = end.at_s - begin.at_s
    cores = {name: (end.cpu_s[name] - begin.cpu_s[name]) / seconds for name in _PROCESSES}
    for name, value in cores.items():
        _add_target(section, load, name, f"{name}, cores", value, "cores")
    section.add(f"{load}: events through the worker", (end.events - begin.events) / seconds, "/s")
    transactions = (end.transactions - begin.transactions) / seconds
    inserts = (end.inserts - begin.inserts) / seconds
    section.add(f"{load}: transactions", transactions, "/s")
    if transactions:
        section.add(f"{load}: worker's time per transaction", cores["streams"] / transactions * 1_000, "CPU-ms")
    _add_target(section, load, "inserts", "inserts", inserts, "/s")
    section.add(f"{load}: rows per insert", (end.rows - begin.rows) / max(1, end.inserts - begin.inserts), "rows")
    section.add(f"{load}: parts written by ClickHouse", (end.parts - begin.parts) / seconds, "/s")


def _add_latencies(section: Section, load: Load, trace: Trace) -> None:
    for where, latencies in (("to the topic", trace.to_topic()), ("to the row", trace.to_row())):
        for percent in (50, 99):
            key, value = f"{where}, p{percent}", latencies.percentile(percent)
            _add_target(section, load, key, f"POST {where}, p{percent}", value, "ms", latencies.note)


def _add_target(section: Section, load: Load, key: str, what: str, value: float, unit: str, note: str = "") -> None:
    target = _TARGETS.get((key, load.partitions)) if (load.rate, load.event_types) == (1_000, 8) else None
    more: dict[str, Any] = {} if target is None else {"target": target, "sense": "at_most"}
    section.add(f"{load}: {what}", value, unit, note=note, **more)


def _unanswered(outcome: LoadResult) -> int:
    return outcome.refused + outcome.unanswered + sum(latency_s > _ANSWER_S for latency_s in outcome.latencies_s)


@click.command()
@click.option("--rate", default=1_000, help="Events per second.")
@click.option("--partitions", default=4)
@click.option("--types", default=8)
@click.option("--seconds", default=_SECONDS)
def main(rate: int, partitions: int, types: int, seconds: float) -> None:
    """Measure one load and print its figures."""
    from bench import report  # noqa: PLC0415 - which the parts do not need

    aiokafka.install()
    section = Section("paced")
    asyncio.run(measure_load(section, Load(rate, partitions, types), seconds))
    click.echo(report.table_of(section.figures))


if __name__ == "__main__":
    main()
