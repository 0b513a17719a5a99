"""The sink: rows per CPU-second of its process, and ClickHouse's own cost beside it."""

from bench import workload
from bench.results import Section
from bench.sampling import Cost, follow, from_metrics
from bench.stack import Stack, stack, wait_until
from bench.streams import run_worker
from eventpush.simulation.fleet import Fate
from schemas import topics

_ROWS = "eventpush_sink_rows_total"


async def measure(*, quick: bool) -> Section:
    """Measure a million events, judged beforehand, on their way from Kafka into ClickHouse."""
    section = Section("sink")
    planned = list(workload.events(100_000 if quick else 1_000_000))
    rows = sum(event.fate in {Fate.VALID, Fate.INVALID} for event in planned)
    async with stack() as made:
        await workload.fill(made.bootstrap, topics.RAW, workload.encode(iter(planned), partitions=4))
        await run_worker(made, len(planned))
        await _store(section, made, rows)
    return section


async def _store(section: Section, made: Stack, rows: int) -> None:
    clickhouse = made.start_clickhouse()
    await wait_until(lambda: "ready on" in clickhouse.log_file.read_text(), clickhouse, "ClickHouse")
    sink = made.start_command("sink")
    samples = await follow(
        from_metrics(made.settings.sink_metrics_port, _ROWS, sink, beside=clickhouse), [sink, clickhouse], rows, 240
    )
    cost = Cost.of(samples)
    section.add("sink process", cost.per_cpu_s, "rows per CPU-second", target=100_000, note=f"{cost.events:,.0f} rows")
    section.add("sink process: wall rate", cost.per_s, "rows/s")
    section.add("sink process: memory", cost.rss_mb, "MB")
    begun = [sample for sample in samples if sample.events]
    beside_cpu_s = begun[-1].beside_cpu_s - begun[0].beside_cpu_s
    section.add("ClickHouse, embedded", cost.events / beside_cpu_s, "rows per CPU-second", note="merges included")
