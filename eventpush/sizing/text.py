"""A layout in words and figures."""

from collections.abc import Iterator

from eventpush.sizing.costs import Cost, Costs
from eventpush.sizing.layout import UTILISATION, Layout, Load, Processes

_WIDTH = 22


def lines(load: Load, layout: Layout, costs: Costs) -> Iterator[str]:
    """Yield the lines of the answer."""
    yield (
        f"{load.rate:,.0f} events/s over the day, {load.peak_rate:,.0f} at its peak; {load.devices:,} devices, "
        f"{load.types} types, window of {load.window_s / 3600:g} h"
    )
    yield ""
    yield from (f"{name:<{_WIDTH}}{text}" for name, text in rows(load, layout))
    yield ""
    yield f"A process uses at most {UTILISATION:.0%} of a core at the peak. Costs:"
    yield from (f"  {process}: {cost_text(cost)}" for process, cost in costs.of.items())
    yield from (f"Not in the benchmark: {missing}." for missing in costs.missing)


def rows(load: Load, layout: Layout) -> list[tuple[str, str]]:
    """Return what is needed, by name."""
    each = layout.partitions // layout.streams.count
    brokers = "cores not measured" if layout.kafka_cores is None else _cores(*layout.kafka_cores)
    network = f"{layout.kafka_in_mbit:,.0f} Mbit/s in and {layout.kafka_out_mbit:,.0f} out at the peak, in all"
    on_disk = f"{layout.rocksdb_gb:,.0f} GB, and {layout.rocksdb_disk_gb:,.0f} GB of disk"
    stored = f"{_size(layout.clickhouse_disk_gb)} on each replica for {load.row_days} days"
    return [
        ("ingress processes", _processes(layout.ingress)),
        ("stream workers", f"{_processes(layout.streams)}; {layout.worker_gb:,.1f} GB each, for {layout.streams_by}"),
        ("sinks", _processes(layout.sink)),
        ("partitions", f"{layout.partitions} of each topic, {each} for a worker"),
        ("brokers", f"{layout.brokers}, for {layout.brokers_by}; {brokers}"),
        ("", f"{layout.replicas_per_broker:,} replicas of partitions on each"),
        ("window", f"{layout.window_gb:,.0f} GB of memory in all workers"),
        ("", f"{on_disk}, with EVENTPUSH_WINDOW_STORE=rocksdb"),
        ("Kafka's disks", f"{_size(layout.kafka_disk_gb)} in all: {load.retention_h} h, {load.replication} replicas"),
        ("Kafka's network", network),
        ("ClickHouse", f"{_cores(*layout.clickhouse_cores)} for inserts and merges; {stored}"),
    ]


def _processes(found: Processes) -> str:
    return f"{found.count}; {_cores(found.cores, found.peak_cores)}"


def _cores(average: float, peak: float) -> str:
    return f"{average:.2f} cores, {peak:.2f} at the peak"


def _size(gigabytes: float) -> str:
    return f"{gigabytes / 1000:,.1f} TB" if gigabytes >= 1_000 else f"{gigabytes:,.0f} GB"


def cost_text(cost: Cost) -> str:
    """Return what an event, a transaction and so on cost, and how far to trust it."""
    parts = ", ".join(
        _COSTS[driver].format(cost_s * 1e6, cost_s * 1e3) for driver, cost_s in cost.per.items() if cost_s
    )
    error = "no other run to check it" if cost.error is None else f"off by up to {cost.error:.0%} for other runs"
    return f"{parts} ({cost.source}; {error})"


#: A driver's cost, given in microseconds and milliseconds of CPU.
_COSTS = {
    "events": "{0:.1f} CPU-µs per event",
    "processes": "{1:.0f} CPU-ms per second of a process",
    "writes": "{1:.2f} CPU-ms per write to Kafka",
    "transactions": "{1:.2f} CPU-ms per transaction",
    "batches": "{0:.0f} CPU-µs per batch in a transaction",
    "inserts": "{1:.2f} CPU-ms per insert",
}
