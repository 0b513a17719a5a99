"""The layout that a load needs: processes, partitions, brokers, memory, disk and network. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from eventpush.sizing.costs import Costs
from eventpush.sizing.demand import Demand, batches, writes

#: Share of a core that a process may use at the peak: the rest is for catching up and for a pod that is replaced.
UTILISATION = 0.6
_WORKERS_MIN, _BROKERS_MIN = 2, 3
#: A partition can belong to one worker only, and more of them take a pause: room for the load to grow fourfold.
_PARTITIONS_PER_WORKER = 4
_PARTITIONS_MIN = 12
_PARTITION_STEP = 12  # divides among 2, 3, 4 and 6 workers

#: Bytes of an identity in the window, at most (decision 0002), and how much longer than the window one is kept.
_IDENTITY_BYTES, _WINDOW_KEPT = 91, 1.25
#: Memory and disk of an identity with `EVENTPUSH_WINDOW_STORE=rocksdb` (docs/deploying.md).
_ROCKSDB_BYTES, _ROCKSDB_DISK_BYTES = 7, 40
#: Bytes of a device, measured with tracemalloc: its entry in the registry, which each worker has of all devices, and
#: the time of its latest state.
_REGISTRY_BYTES, _STATE_BYTES = 323, 138
_PROCESS_BYTES = 350e6  # of a stream worker under a backlog, without its window
#: Bytes of an event on Kafka's disks, zstd, measured on the simulated fleet in transactions of 50 events: raw 75, the
#: event for all and by type 149 each, 29 in the window's changelog; rounded up for the latest state and the indexes.
KAFKA_EVENT_BYTES = 500
#: What leaves the brokers for each event: raw to the workers, the event to the sink and to one subscriber.
_READ_BYTES = 75 + 149 + 149
_DISK_FULL, _NIC_FULL = 0.7, 0.5  # how full a broker's disk and network may be
_INDEX_BYTES = 1.3  # ClickHouse needs room to merge


@dataclass(frozen=True)
class Load:
    """What is asked for."""

    rate: float  # events per second over a day
    devices: int
    window_s: int
    types: int
    peak: float = 2.0  # the day's peak, as a multiple of `rate`
    replication: int = 3
    retention_h: int = 168
    row_days: int = 365
    broker_disk_gb: float = 2_000.0
    broker_network_gbit: float = 10.0
    broker_cores: int = 8
    worker_memory_gb: float = 32.0

    @property
    def peak_rate(self) -> float:
        """Events per second at the day's peak."""
        return self.rate * self.peak


@dataclass(frozen=True)
class Processes:
    """The processes of one kind: how many, and the cores of all of them on average and at the peak."""

    count: int
    cores: float
    peak_cores: float


@dataclass(frozen=True)
class Layout:
    """What a load needs."""

    ingress: Processes
    streams: Processes
    sink: Processes
    clickhouse_cores: tuple[float, float]  # average, peak
    kafka_cores: tuple[float, float] | None  # None: not measured
    brokers: int
    brokers_by: str  # what decides their number
    partitions: int
    topics: int
    replicas_per_broker: int
    streams_by: str  # what decides the number of stream workers
    window_gb: float  # of all stream workers together
    rocksdb_gb: float  # the same with the window on disk
    rocksdb_disk_gb: float
    worker_gb: float  # of one, with the registry
    kafka_disk_gb: float  # of all brokers, replicas included
    clickhouse_disk_gb: float
    kafka_in_mbit: float  # at the peak, replication included
    kafka_out_mbit: float


def layout(load: Load, costs: Costs) -> Layout:
    """Return what the load needs, for its peak; ValueError if a worker's memory cannot hold the registry."""
    ingresses = _scaled(load, costs, "ingress")
    workers = _scaled(load, costs, "streams")
    sinks = _scaled(load, costs, "sink")
    identities = load.rate * load.window_s * _WINDOW_KEPT
    fixed_gb = (_PROCESS_BYTES + load.devices * _REGISTRY_BYTES) / 1e9  # in each worker
    shared_gb = (identities * _IDENTITY_BYTES + load.devices * _STATE_BYTES) / 1e9
    if fixed_gb >= load.worker_memory_gb:
        raise ValueError(f"the registry of {load.devices:,} devices alone takes {fixed_gb:.1f} GB in each worker")
    for_memory = ceil(shared_gb / (load.worker_memory_gb - fixed_gb))
    by_cores = "their cores" if workers > _WORKERS_MIN else "availability"
    streams_by = "memory" if for_memory > workers else by_cores
    workers = max(workers, for_memory)
    partitions = _partitions(workers)
    sinks = min(sinks, partitions)
    counts = {"ingress": ingresses, "streams": workers, "sink": sinks}
    clickhouse = _cores(load, costs, "clickhouse", counts)
    kafka = _cores(load, costs, "kafka", counts) if "kafka" in costs.of else None
    disk_gb = load.rate * load.retention_h * 3_600 * KAFKA_EVENT_BYTES * load.replication / 1e9
    in_mbit = load.peak_rate * KAFKA_EVENT_BYTES * load.replication * 8 / 1e6
    out_mbit = load.peak_rate * (_READ_BYTES + KAFKA_EVENT_BYTES * (load.replication - 1)) * 8 / 1e6
    reasons = {
        "replicas": max(_BROKERS_MIN, load.replication),
        "disk": ceil(disk_gb / (load.broker_disk_gb * _DISK_FULL)),
        "network": ceil(max(in_mbit, out_mbit) / (load.broker_network_gbit * 1_000 * _NIC_FULL)),
        "cores": ceil(kafka[1] * load.replication / (load.broker_cores * UTILISATION)) if kafka else 0,
    }
    brokers = max(reasons.values())
    topics = load.types + 8  # raw, events, dead letters, registry, latest states, account, window, other
    return Layout(
        ingress=Processes(ingresses, *_cores(load, costs, "ingress", counts)),
        streams=Processes(workers, *_cores(load, costs, "streams", counts)),
        sink=Processes(sinks, *_cores(load, costs, "sink", counts)),
        clickhouse_cores=clickhouse,
        kafka_cores=kafka,
        brokers=brokers,
        brokers_by=next(reason for reason, count in reasons.items() if count == brokers),
        partitions=partitions,
        topics=topics,
        replicas_per_broker=ceil(topics * partitions * load.replication / brokers),
        streams_by=streams_by,
        window_gb=identities * _IDENTITY_BYTES / 1e9,
        rocksdb_gb=identities * _ROCKSDB_BYTES / 1e9,
        rocksdb_disk_gb=identities * _ROCKSDB_DISK_BYTES / 1e9,
        worker_gb=fixed_gb + shared_gb / workers,
        kafka_disk_gb=disk_gb,
        clickhouse_disk_gb=load.rate * 86_400 * load.row_days * costs.row_bytes * _INDEX_BYTES / 1e9,
        kafka_in_mbit=in_mbit,
        kafka_out_mbit=out_mbit,
    )


def _partitions(workers: int) -> int:
    return _PARTITION_STEP * ceil(max(_PARTITIONS_MIN, workers * _PARTITIONS_PER_WORKER) / _PARTITION_STEP)


def _scaled(load: Load, costs: Costs, process: str) -> int:
    """Return how many processes of this kind are needed for their cores: each adds its own transactions or inserts."""
    count = _WORKERS_MIN
    while _cores(load, costs, process, {process: count})[1] > count * UTILISATION:
        count += 1
    return count


def _cores(load: Load, costs: Costs, process: str, counts: Mapping[str, int]) -> tuple[float, float]:
    """Return the cores of all processes of this kind, on average and at the peak."""
    average, peak = (
        costs.of[process].cores(_demand(load, costs, rate, process, counts)) for rate in (load.rate, load.peak_rate)
    )
    return average, peak


def _demand(load: Load, costs: Costs, rate: float, process: str, counts: Mapping[str, int]) -> Demand:
    """Return the work at a rate; of processes that are not counted there is none."""
    workers, ingresses = counts.get("streams", 0), counts.get("ingress", 0)
    transactions = workers * (costs.transactions_per_worker or 0.0)
    return Demand(
        rate,
        counts.get(process, 0),
        writes(rate, ingresses) if ingresses else 0.0,
        transactions,
        batches(rate, transactions, _partitions(workers), load.types, workers) if transactions else 0.0,
        counts.get("sink", 0) * (costs.inserts_per_sink or 0.0),
    )
