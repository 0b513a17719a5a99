"""What size does to the cost of an event: identities in the window, partitions, event types, workers."""

import time
from collections.abc import Sequence

from bench import workload
from bench.results import Section
from bench.sampling import Cost, Sample, follow, from_metrics
from bench.seeding import seed_window
from bench.stack import stack, wait_ready
from bench.streams import COUNTER, run_worker
from bench.workload import EncodedBatch
from schemas import topics

_IDENTITIES = (0, 1_000_000, 5_000_000, 20_000_000)
_IDENTITIES_QUICK = (0, 200_000)


async def measure(*, quick: bool) -> Section:
    """Each size on a fresh stack; 300,000 events (50,000 when quick)."""
    section = Section("growth")
    count = 50_000 if quick else 300_000
    batches = workload.encode(workload.events(count), partitions=4)
    await _identities(section, batches, count, _IDENTITIES_QUICK if quick else _IDENTITIES)
    await _partitions(section, count)
    await _event_types(section, count)
    await _workers(section, batches, count)
    return section


async def _identities(section: Section, batches: list[EncodedBatch], count: int, sizes: Sequence[int]) -> None:
    costs: dict[int, Cost] = {}
    for size in sizes:
        async with stack() as made:
            await seed_window(made, size)
            await workload.fill(made.bootstrap, topics.RAW, batches)
            began = time.monotonic()
            costs[size] = Cost.of(await run_worker(made, count))
            took_s = time.monotonic() - began
        label = f"{size / 1e6:g} million identities"
        section.add(label, costs[size].per_cpu_s, "events per CPU-second", note=f"{took_s:.0f} s with the restart")
        section.add(f"{label}: memory", costs[size].rss_mb, "MB")
        section.series.setdefault("identities", []).append([size, costs[size].per_cpu_s, costs[size].rss_mb])
    ratio = costs[sizes[0]].per_cpu_s / costs[sizes[-1]].per_cpu_s
    label = f"cost per event, {sizes[-1] / 1e6:g} million identities ÷ none"
    section.add(label, ratio, "×", target=1.25, sense="at_most")


async def _partitions(section: Section, count: int) -> None:
    for partitions in (4, 64):
        batches = workload.encode(workload.events(count), partitions)
        async with stack(topic_partitions=partitions) as made:
            await workload.fill(made.bootstrap, topics.RAW, batches)
            _add(section, f"{partitions} partitions", Cost.of(await run_worker(made, count)))


async def _event_types(section: Section, count: int) -> None:
    for event_types in (8, 150):
        batches = workload.encode(workload.events(count, event_types), partitions=4)
        async with stack() as made:
            await workload.fill(made.bootstrap, topics.RAW, batches)
            _add(section, f"{event_types} event types", Cost.of(await run_worker(made, count)))


async def _workers(section: Section, batches: list[EncodedBatch], count: int) -> None:
    rates: dict[int, Cost] = {}
    for workers in (1, 2):
        async with stack() as made:
            ports = [made.free_port() for _ in range(workers)]
            children = [made.start_command("streams", streams_metrics_port=port) for port in ports]
            for child, port in zip(children, ports, strict=True):
                await wait_ready(child, port)
            takes = [from_metrics(port, COUNTER, child) for child, port in zip(children, ports, strict=True)]

            def together(takes: list = takes) -> Sample | None:  # type: ignore[type-arg]
                samples = [take() or Sample(0, 0, 0, 0) for take in takes]
                return sum(samples[1:], samples[0])

            await workload.fill(made.bootstrap, topics.RAW, batches)
            rates[workers] = Cost.of(await follow(together, children, count, 180))
        section.add(f"{workers} workers", rates[workers].per_cpu_s, "events per CPU-second")
        section.add(f"{workers} workers: wall rate", rates[workers].per_s, "events/s")
    note = "the broker and the benchmark share the cores with the workers"
    section.add("two workers ÷ one, wall rate", rates[2].per_s / rates[1].per_s, "×", target=1.8, note=note)
    section.add("two workers ÷ one, per CPU-second", rates[2].per_cpu_s / rates[1].per_cpu_s, "×")


def _add(section: Section, label: str, cost: Cost) -> None:
    section.add(label, cost.per_cpu_s, "events per CPU-second")
    section.add(f"{label}: wall rate", cost.per_s, "events/s")
    section.add(f"{label}: memory", cost.rss_mb, "MB")
