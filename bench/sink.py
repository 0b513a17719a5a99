"""The sink: rows per CPU-second of its process, and ClickHouse's own cost."""

from bench import workload
from bench.benchmark_stack import BenchmarkStack, benchmark_stack, wait_until
from bench.results import Section
from bench.sampling import Cost, follow, from_metrics
from bench.streams import run_worker
from eventpush.simulation.fleet import ExpectedOutcome
from schemas import topics

_ROWS = "eventpush_sink_rows_total"


async def measure(*, quick: bool) -> Section:
    """Measure storing a million enriched events from Kafka in ClickHouse."""
    section = Section("sink")
    planned = list(workload.events(100_000 if quick else 1_000_000))
    rows = sum(event.expected_outcome in {ExpectedOutcome.VALID, ExpectedOutcome.INVALID} for event in planned)
    async with benchmark_stack() as stack:
        await workload.fill(stack.bootstrap, topics.RAW, workload.encode(iter(planned), partitions=4))
        await run_worker(stack, len(planned))
        await _store(section, stack, rows)
    return section


async def _store(section: Section, stack: BenchmarkStack, rows: int) -> None:
    clickhouse = stack.start_clickhouse()
    await wait_until(lambda: "ready on" in clickhouse.log_file.read_text(), clickhouse, "ClickHouse")
    sink = stack.start_command("sink")
    samples = await follow(
        from_metrics(stack.settings.sink_metrics_port, _ROWS, sink, beside=clickhouse), [sink, clickhouse], rows, 240
    )
    cost = Cost.of(samples)
    section.add("sink process", cost.per_cpu_s, "rows per CPU-second", target=100_000, note=f"{cost.events:,.0f} rows")
    section.add("sink process: wall rate", cost.per_s, "rows/s")
    section.add("sink process: memory", cost.rss_mb, "MB")
    begun = [sample for sample in samples if sample.events]
    beside_cpu_s = begun[-1].beside_cpu_s - begun[0].beside_cpu_s
    section.add("ClickHouse, embedded", cost.events / beside_cpu_s, "rows per CPU-second", note="merges included")
