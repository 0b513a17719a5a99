"""How size affects the cost of an event: identities in the window, partitions, event types, workers."""

import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import islice

from bench import workload
from bench.benchmark_stack import BenchmarkStack, benchmark_stack, wait_ready
from bench.results import Section
from bench.sampling import Cost, Sample, follow, from_metrics
from bench.seeding import seed_window
from bench.streams import COUNTER, run_worker
from bench.workload import EncodedBatch
from schemas import topics

_IDENTITIES = (0, 1_000_000, 5_000_000, 20_000_000)
_IDENTITIES_QUICK = (0, 200_000)
#: Share of the events until which every worker has work; at the end one finishes before the other.
_BUSY_SHARE = 0.8
_WORKERS_PARTITIONS = 8  # several for each of two workers
_CPU_SHARE = 0.3  # of a core


async def measure(*, quick: bool) -> Section:
    """Measure each size on a fresh stack; 300,000 events (50,000 when quick)."""
    section = Section("growth")
    count = 50_000 if quick else 300_000
    batches = workload.encode(workload.events(count), partitions=4)
    await _identities(section, batches, count, _IDENTITIES_QUICK if quick else _IDENTITIES)
    await _partitions(section, count)
    await _event_types(section, count)
    await _workers(section, workload.encode(workload.events(count), _WORKERS_PARTITIONS), count)
    return section


async def _identities(section: Section, batches: list[EncodedBatch], count: int, sizes: Sequence[int]) -> None:
    costs: dict[int, Cost] = {}
    for size in sizes:
        async with benchmark_stack() as stack:
            await seed_window(stack, size)
            await workload.fill(stack.bootstrap, topics.RAW, batches)
            began = time.monotonic()
            costs[size] = Cost.of(await run_worker(stack, count))
            took_s = time.monotonic() - began
        label = f"{size / 1e6:g} million identities"
        section.add(label, costs[size].per_cpu_s, "events per CPU-second", note=f"{took_s:.0f} s with the restart")
        section.add(f"{label}: memory", costs[size].rss_mb, "MB")
        section.series.setdefault("identities", []).append([size, costs[size].per_cpu_s, costs[size].rss_mb])
    ratio = costs[sizes[0]].per_cpu_s / costs[sizes[-1]].per_cpu_s
    label = f"cost per event, {sizes[-1] / 1e6:g} million identities ÷ none"
    section.add(label, ratio, "×", target=1.25, sense="at_most")


async def _partitions(section: Section, count: int) -> None:
    costs = {}
    for partitions in (4, 64):
        async with benchmark_stack(topic_partitions=partitions) as stack:
            costs[partitions] = await _cold_and_warm(section, stack, f"{partitions} partitions", count)
    _add_ratio(section, "64 partitions ÷ 4", costs[64], costs[4])


async def _event_types(section: Section, count: int) -> None:
    costs = {}
    for event_types in (8, 150):
        async with benchmark_stack() as stack:
            costs[event_types] = await _cold_and_warm(section, stack, f"{event_types} event types", count, event_types)
    _add_ratio(section, "150 event types ÷ 8", costs[150], costs[8])


async def _cold_and_warm(section: Section, stack: BenchmarkStack, label: str, count: int, event_types: int = 0) -> Cost:
    """Measure `count` events on a broker that has just started, and as many more; return the cost of the latter.

    A broker that has just started touches each log's index files for the first time.
    """
    planned = workload.events(2 * count, event_types)
    for broker in ("cold", "warm"):
        batches = workload.encode(islice(planned, count), stack.settings.topic_partitions)
        await workload.fill(stack.bootstrap, topics.RAW, batches)
        cost = Cost.of(await run_worker(stack, count))
        _add(section, f"{label}, {broker} broker", cost)
    return cost


def _add_ratio(section: Section, label: str, cost: Cost, default: Cost) -> None:
    section.add(f"{label}, per CPU-second, warm broker", cost.per_cpu_s / default.per_cpu_s, "×", target=0.9)


async def _workers(section: Section, batches: list[EncodedBatch], count: int) -> None:
    """Compare one worker with two: unlimited, and each limited to a share of a core so that cores are not scarce."""
    free = [await _side_by_side(batches, count, workers, share=1.0) for workers in (1, 2)]
    limited = [await _side_by_side(batches, count, workers, share=_CPU_SHARE) for workers in (1, 2)]
    for workers, cost in enumerate(free, 1):
        _add(section, f"{workers} workers, {_WORKERS_PARTITIONS} partitions", cost)
    for workers, cost in enumerate(limited, 1):
        label = f"{workers} workers, {_WORKERS_PARTITIONS} partitions, each {_CPU_SHARE:.0%} of the time"
        section.add(f"{label}: wall rate", cost.per_s, "events/s")
    note = f"each runs {_CPU_SHARE:.0%} of the time, so that there are cores for both and for the broker"
    section.add(
        "two workers ÷ one, wall rate while cores last", limited[1].per_s / limited[0].per_s, "×", target=1.8, note=note
    )
    note = "the broker and the benchmark share the cores with the workers"
    section.add(
        f"two workers ÷ one, wall rate on {os.cpu_count()} cores", free[1].per_s / free[0].per_s, "×", note=note
    )
    section.add("two workers ÷ one, per CPU-second", free[1].per_cpu_s / free[0].per_cpu_s, "×")


async def _side_by_side(batches: list[EncodedBatch], count: int, workers: int, share: float) -> Cost:
    async with benchmark_stack(topic_partitions=_WORKERS_PARTITIONS) as stack, AsyncExitStack() as limits:
        ports = [stack.free_port() for _ in range(workers)]
        children = [stack.start_command("streams", streams_metrics_port=port) for port in ports]
        for child, port in zip(children, ports, strict=True):
            await wait_ready(child, port)
        takes = [from_metrics(port, COUNTER, child) for child, port in zip(children, ports, strict=True)]

        def sample_all() -> Sample:
            samples = [take() or Sample(0, 0, 0, 0) for take in takes]
            return sum(samples[1:], samples[0])

        await workload.fill(stack.bootstrap, topics.RAW, batches)
        if share < 1:
            for number, child in enumerate(children):  # out of phase, so that the broker has a core for itself
                await limits.enter_async_context(child.limited_to(share, number / workers))
        return Cost.of(await follow(sample_all, children, count * _BUSY_SHARE, 180))


def _add(section: Section, label: str, cost: Cost) -> None:
    section.add(label, cost.per_cpu_s, "events per CPU-second")
    section.add(f"{label}: wall rate", cost.per_s, "events/s")
    section.add(f"{label}: memory", cost.rss_mb, "MB")
