"""The stream worker against the same logic in an ordinary Faust agent and in Quix Streams: events per CPU-second."""

import site
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import workload
from bench.processes import Child
from bench.results import Section
from bench.sampling import Cost, Sample, first_in_log, follow, from_log, from_metrics
from bench.stack import Stack, stack
from bench.workload import EncodedBatch
from schemas import topics

PEERS_PYTHON = Path(".venv/peers/bin/python")
COUNTER = "eventpush_streams_events_total"
_VARIANTS = ("same", "lean")

#: Measures a variant of a peer on these batches for at most so many seconds.
Peer = Callable[[str, list[EncodedBatch], float], Awaitable[Cost]]
_TYPES = ("overspeed", "geofence_enter", "geofence_exit", "fuel_fill", "fuel_drain", "power_cut", "tampering", "sos",
          "harsh_braking")  # fmt: skip


async def measure(*, quick: bool) -> Section:
    """One million events (100,000 when quick); the peers take as many of the same as fit into a minute each.

    Ours is measured before, between and after its peers, and the middle one of the three counts.
    """
    section = Section("streams")
    count = 100_000 if quick else 1_000_000
    batches = workload.encode(workload.events(count), partitions=4)
    turns, costs = [await _ours(batches, count)], dict[tuple[Peer, str], Cost]()
    for peer in _NAMES:
        for variant in _VARIANTS:
            costs[peer, variant] = await peer(variant, batches, 20 if quick else 45)
        turns.append(await _ours(batches, count))
    samples = sorted(turns, key=lambda turn: Cost.of(turn).per_cpu_s)[1]
    ours = Cost.of(samples)
    section.series["streams"] = [[s.wall_s - samples[0].wall_s, s.events, s.cpu_s, s.rss_bytes] for s in samples]
    section.add("stream worker: events in a transaction", samples[-1].events / samples[-1].batches, "events")
    _add(section, "stream worker, everything on", ours, target=60_000)
    for (peer, variant), cost in costs.items():
        label = f"{_NAMES[peer]}, {'same logic' if variant == 'same' else 'lean: parse, state, one send'}"
        _add(section, label, cost)
        section.add(f"stream worker ÷ {label}", ours.per_cpu_s / cost.per_cpu_s, "×", target=_LEAST[peer])
    return section


def _add(section: Section, what: str, cost: Cost, target: float | None = None) -> None:
    section.add(what, cost.per_cpu_s, "events per CPU-second", target=target, note=f"{cost.events:,.0f} events")
    section.add(f"{what}: cost", cost.cpu_s_per_million, "CPU-seconds per million")
    section.add(f"{what}: wall rate", cost.per_s, "events/s")
    section.add(f"{what}: memory", cost.rss_mb, "MB")


async def run_worker(made: Stack, count: int) -> list[Sample]:
    """Start a worker, follow it through so many raw events, stop it."""
    worker = made.start_command("streams")
    samples = await follow(from_metrics(made.settings.streams_metrics_port, COUNTER, worker), [worker], count, 240)
    await worker.stop()
    return samples


async def _ours(batches: list[EncodedBatch], count: int) -> list[Sample]:
    async with stack() as made:
        await workload.fill(made.bootstrap, topics.RAW, batches)
        return await run_worker(made, count)


async def _faust(variant: str, batches: list[EncodedBatch], seconds: float) -> Cost:
    async with stack() as made:
        names = [f"peer.faust.event.{name}" for name in _TYPES]
        await made.create_topics("peer.faust.events", "peer.faust.dead", *names)
        await workload.fill(made.bootstrap, topics.RAW, batches)
        arguments = (variant, made.bootstrap, str(made.home / "peer"))
        child = made.start("faust", sys.executable, "-m", "bench.peers.faust_agent", *arguments)
        return await _peer(child, batches, seconds)


async def _quix(variant: str, batches: list[EncodedBatch], seconds: float) -> Cost:
    async with stack() as made:
        names = [f"peer.quix.event.{name}" for name in _TYPES]
        await made.create_topics("peer.quix.events", "peer.quix.dead", *names)
        await workload.fill(made.bootstrap, topics.RAW, batches)
        return await _peer(_start_quix(made, variant), batches, seconds)


def _start_quix(made: Stack, variant: str) -> Child:
    made.environ["EVENTPUSH_BENCH_PACKAGES"] = ":".join(site.getsitepackages())
    arguments = (variant, made.bootstrap, str(made.home / "peer"))
    return made.start("quix", str(PEERS_PYTHON), "-m", "bench.peers.quix_app", *arguments)


async def _peer(child: Child, batches: list[EncodedBatch], seconds: float) -> Cost:
    """Lets the peer work for so long, or to the end of the data."""
    all_events = sum(batch.records for batch in batches)
    await follow(from_log(child.log_file), [child], 1, timeout_s=90)
    samples = await follow(from_log(child.log_file), [child], all_events * 0.99, timeout_s=seconds)
    return Cost.of([first_in_log(child.log_file), *samples])


_NAMES: dict[Peer, str] = {_faust: "ordinary Faust agent", _quix: "Quix Streams with state"}
_LEAST: dict[Peer, float] = {_faust: 40.0, _quix: 5.0}
