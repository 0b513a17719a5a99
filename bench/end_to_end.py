"""End-to-end latency from the POST to subscribers and to ClickHouse, with everything running, at several rates."""

from bench import http_load, latency
from bench.benchmark_stack import BenchmarkStack, benchmark_stack
from bench.latency import Trace
from bench.results import Section
from schemas import topics
from schemas.event_types import TYPES

_RATES = (100, 1_000, 4_000)
_CONNECTIONS = 64
_POLL_S = 0.05


async def measure(*, quick: bool) -> Section:
    """Measure one rate after the other on one stack."""
    section = Section("end_to_end")
    duration_s = 5.0 if quick else 20.0
    async with benchmark_stack() as stack:
        await latency.start_stages(stack)
        for number, rate in enumerate(_RATES):
            trace = await _run(stack, rate, duration_s, seed=10 + number)
            _add(section, trace, rate)
    return section


async def _run(stack: BenchmarkStack, rate: int, duration_s: float, seed: int) -> Trace:
    trace, events = latency.plan(seed, int(rate * (duration_s + 3)), rate)
    port, bodies = stack.settings.ingress_port, trace.bodies(events)
    async with latency.watching(stack, trace, [topics.of_type(event) for event in TYPES], _POLL_S):
        await http_load.paced(port, bodies, _CONNECTIONS, rate, 2.0)  # warm up
        trace.sent.clear()
        await http_load.paced(port, bodies, _CONNECTIONS, rate, duration_s)
    return trace


def _add(section: Section, trace: Trace, rate: int) -> None:
    ends = (
        ("readable on the type's topic", trace.to_topic(), 150.0),
        ("selectable in ClickHouse", trace.to_row(), 1_500.0),
    )
    for where, latencies, target in ends:
        p50, p99, note = latencies.percentile(50), latencies.percentile(99), latencies.note
        section.add(f"POST → {where}, {rate:,} events/s: p50", p50, "ms", note=note)
        at_most = {"target": target, "sense": "at_most"} if rate == 1_000 else {}
        section.add(f"POST → {where}, {rate:,} events/s: p99", p99, "ms", note=note, **at_most)
        section.series.setdefault(where, []).append([rate, p50, p99])
