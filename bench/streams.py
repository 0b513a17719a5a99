"""The stream worker compared with the same logic elsewhere: events per CPU-second.

Peers in Python: an ordinary Faust agent, and Quix Streams. Peers in Go and Java, where those can be built: franz-go and
Kafka Streams (`bench.native_peers`), which must do the same work (`bench.same_work`).
"""

import site
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from bench import native_peers, same_work, workload
from bench.benchmark_stack import BenchmarkStack, benchmark_stack
from bench.measured_process import MeasuredProcess
from bench.native_peers import NativePeer
from bench.results import Section
from bench.sampling import Cost, Sample, first_in_log, follow, from_log, from_metrics
from bench.workload import EncodedBatch
from schemas import topics

PEERS_PYTHON = Path(".venv/peers/bin/python")
COUNTER = "eventpush_streams_events_total"
_VARIANTS = ("same", "lean")
_TURNS = 3

T = TypeVar("T")

#: Measures a variant of a peer on these batches, for at most the given seconds.
Peer = Callable[[str, list[EncodedBatch], float], Awaitable[Cost]]


async def measure(*, quick: bool) -> Section:
    """Measure one million events (100,000 when quick); peers in Python process as many of them as fit into 45 s each.

    The stream worker and its native peers take turns; the median of each one's runs counts.
    """
    section = Section("streams")
    count = 100_000 if quick else 1_000_000
    natives = native_peers.built((native_peers.go_stream, native_peers.kafka_streams))
    if natives:
        await same_work.require_same_work(natives, COUNTER)
    batches = workload.encode(workload.events(count), partitions=4)
    runs, native_costs = await _in_turns(natives, batches, count)
    costs = dict[tuple[Peer, str], Cost]()
    for peer in _NAMES:
        for variant in _VARIANTS:
            costs[peer, variant] = await peer(variant, batches, 20 if quick else 45)
    samples = _median(runs, key=lambda run: Cost.of(run).per_cpu_s)
    ours = Cost.of(samples)
    section.series["streams"] = [[s.wall_s - samples[0].wall_s, s.events, s.cpu_s, s.rss_bytes] for s in samples]
    section.add("stream worker: events in a transaction", samples[-1].events / samples[-1].batches, "events")
    _add(section, "stream worker, everything on", ours, target=60_000)
    for native, cost in zip(natives, native_costs, strict=True):
        _add(section, native.label, cost)
        target = _LEAST.get(native.name)
        section.add(f"stream worker ÷ {native.label}", ours.per_cpu_s / cost.per_cpu_s, "×", target=target)
    for (peer, variant), cost in costs.items():
        label = f"{_NAMES[peer]}, {'same logic' if variant == 'same' else 'lean: parse, state, one send'}"
        _add(section, label, cost)
        section.add(f"stream worker ÷ {label}", ours.per_cpu_s / cost.per_cpu_s, "×")
    return section


async def _in_turns(
    natives: list[NativePeer], batches: list[EncodedBatch], count: int
) -> tuple[list[list[Sample]], list[Cost]]:
    """Run the stream worker and its native peers in turn; return the worker's runs and each peer's median."""
    runs, costs = list[list[Sample]](), [list[Cost]() for _ in natives]
    for _ in range(_TURNS):
        runs.append(await _ours(batches, count))
        for native, of_native in zip(natives, costs, strict=True):
            of_native.append(await _native(native, batches))
    return runs, [_median(of_native, key=lambda cost: cost.per_cpu_s) for of_native in costs]


def _median(runs: list[T], key: Callable[[T], float]) -> T:
    return sorted(runs, key=key)[len(runs) // 2]


def _add(section: Section, what: str, cost: Cost, target: float | None = None) -> None:
    section.add(what, cost.per_cpu_s, "events per CPU-second", target=target, note=f"{cost.events:,.0f} events")
    section.add(f"{what}: cost", cost.cpu_s_per_million, "CPU-seconds per million")
    section.add(f"{what}: wall rate", cost.per_s, "events/s")
    section.add(f"{what}: memory", cost.rss_mb, "MB")


async def run_worker(stack: BenchmarkStack, count: int) -> list[Sample]:
    """Start a worker, follow it through `count` raw events, stop it."""
    worker = stack.start_command("streams")
    samples = await follow(from_metrics(stack.settings.streams_metrics_port, COUNTER, worker), [worker], count, 240)
    await worker.stop()
    return samples


async def _ours(batches: list[EncodedBatch], count: int) -> list[Sample]:
    async with benchmark_stack() as stack:
        await workload.fill(stack.bootstrap, topics.RAW, batches)
        return await run_worker(stack, count)


async def _native(peer: NativePeer, batches: list[EncodedBatch]) -> Cost:
    """Let the peer process all events; one that has to get warm is measured over the second half of them."""
    async with benchmark_stack() as stack:
        await workload.fill(stack.bootstrap, topics.RAW, batches)
        child = await same_work.start(stack, peer)
        all_events = sum(batch.records for batch in batches)
        samples = await follow(from_log(child.log_file), [child], all_events * 0.99, timeout_s=240)
        return Cost.of([s for s in samples if s.events >= all_events / 2] if peer.needs_warmth else samples)


async def _faust(variant: str, batches: list[EncodedBatch], seconds: float) -> Cost:
    async with benchmark_stack() as stack:
        names = [f"peer.faust.event.{name}" for name in workload.EVENT_TYPES]
        await stack.create_topics("peer.faust.events", "peer.faust.dead", *names)
        await workload.fill(stack.bootstrap, topics.RAW, batches)
        arguments = (variant, stack.bootstrap, str(stack.home / "peer"))
        child = stack.start("faust", sys.executable, "-m", "bench.peers.faust_agent", *arguments)
        return await _peer(child, batches, seconds)


async def _quix(variant: str, batches: list[EncodedBatch], seconds: float) -> Cost:
    async with benchmark_stack() as stack:
        names = [f"peer.quix.event.{name}" for name in workload.EVENT_TYPES]
        await stack.create_topics("peer.quix.events", "peer.quix.dead", *names)
        await workload.fill(stack.bootstrap, topics.RAW, batches)
        return await _peer(_start_quix(stack, variant), batches, seconds)


def _start_quix(stack: BenchmarkStack, variant: str) -> MeasuredProcess:
    stack.environ["EVENTPUSH_BENCH_PACKAGES"] = ":".join(site.getsitepackages())
    arguments = (variant, stack.bootstrap, str(stack.home / "peer"))
    return stack.start("quix", str(PEERS_PYTHON), "-m", "bench.peers.quix_app", *arguments)


async def _peer(child: MeasuredProcess, batches: list[EncodedBatch], seconds: float) -> Cost:
    """Let the peer work for `seconds`, or to the end of the data."""
    all_events = sum(batch.records for batch in batches)
    await follow(from_log(child.log_file), [child], 1, timeout_s=90)
    samples = await follow(from_log(child.log_file), [child], all_events * 0.99, timeout_s=seconds)
    return Cost.of([first_in_log(child.log_file), *samples])


_NAMES: dict[Peer, str] = {_faust: "ordinary Faust agent", _quix: "Quix Streams with state"}
#: Targets of the ratio to native peers, by name.
_LEAST = {"kafka_streams": 1.25}
