"""Whether disks and memory suffice."""

import os
import shutil
import time
from pathlib import Path

import msgspec

from eventpush import topic_reader
from eventpush.checking.result import Finding
from eventpush.clickhouse_client import connected
from runtime.adapters import aiokafka_admin
from runtime.kafka.topic_admin import admin
from runtime.platform.settings import Settings
from schemas import topics

_FREE_MIN = 0.1  # of a disk's size
_MEMORY_MAX = 0.8  # of the machine's, for the window of all partitions
_IDENTITY_BYTES, _IDENTITY_DISK_BYTES, _SEGMENTS = 91, 40, 1.25  # docs/deploying.md, Sizing
_HOUR_MS = 3_600_000
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Disk(msgspec.Struct, frozen=True):
    """A disk: what it is for, and its size and free space in bytes."""

    name: str
    free: int
    size: int


async def check_disks(settings: Settings) -> Finding:
    """Look at the disks of ClickHouse and of the brokers, and at the one of the data directory."""
    usage = shutil.disk_usage(_existing(settings.data_dir))
    disks = [Disk(f"of {settings.data_dir}", usage.free, usage.total)]
    async with connected(settings) as client:
        found = await client.query("SELECT name, free_space, total_space FROM system.disks WHERE total_space > 0")
        disks += [Disk(f"{name} of ClickHouse", int(free), int(size)) for name, free, size in found.result_rows]
    async with admin(settings) as kafka:
        log_dirs = await aiokafka_admin.log_dirs(kafka)
    disks += [Disk(f"{at.path} of broker {at.broker}", at.free_bytes, at.size_bytes) for at in log_dirs or ()]
    state, detail = disks_finding(disks)
    if log_dirs is None:
        detail += "; the brokers' disks were not seen: that needs Kafka 3.3, and Describe on the cluster"
    return state, detail


def disks_finding(disks: list[Disk]) -> Finding:
    """Warn of disks with less than a tenth free. Pure."""
    full = [disk for disk in disks if disk.free < _FREE_MIN * disk.size]
    shown = ", ".join(f"disk {disk.name} has {_gb(disk.free)} of {_gb(disk.size)} free" for disk in full or disks)
    if not full:
        return "ok", shown
    return "warning", (
        f"{shown}: add space or remove old data (Kafka: shorten EVENTPUSH_TOPIC_RETENTION_H, then `eventpush topics`;"
        " ClickHouse: ALTER TABLE … DROP PARTITION); a full disk stops the pipeline, and loses nothing"
    )


async def check_window(settings: Settings) -> Finding:
    """Compare what the window takes at the last hour's rate with this machine's memory, or disk."""
    ends = await topic_reader.offsets(settings, topics.RAW)
    since = await topic_reader.offsets_at(settings, topics.RAW, int(time.time() * 1000) - _HOUR_MS)
    events = sum(end - since[partition] for partition, (_, end) in ends.items())
    free_disk = shutil.disk_usage(_existing(settings.data_dir)).free
    return window_finding(settings, events / 3600, memory_bytes(), free_disk)


def window_finding(settings: Settings, rate: float, memory: int, free_disk: int) -> Finding:
    """Warn of a window that does not fit; `rate` in events per second, the rest in bytes. Pure."""
    identities = rate * settings.window_s * _SEGMENTS
    shown = f"{rate:,.1f} events/s for {settings.window_s} s are {identities:,.0f} identities"
    if settings.window_store == "rocksdb":
        needed = identities * _IDENTITY_DISK_BYTES
        if needed <= free_disk:
            return "ok", f"{shown}: {_gb(needed)} on disk, {_gb(free_disk)} are free"
        return "warning", (
            f"{shown}: {_gb(needed)} on disk, but only {_gb(free_disk)} are free: add space, more machines with stream"
            " workers, or shorten EVENTPUSH_WINDOW_S"
        )
    needed = identities * _IDENTITY_BYTES
    if needed <= _MEMORY_MAX * memory:
        return "ok", f"{shown}: {_gb(needed)} of {_gb(memory)} memory"
    return "warning", (
        f"{shown}: {_gb(needed)}, but this machine has {_gb(memory)} memory: set EVENTPUSH_WINDOW_STORE=rocksdb, run"
        " stream workers on more machines, or shorten EVENTPUSH_WINDOW_S"
    )


def memory_bytes() -> int:
    """Return this machine's memory, or the limit of the control group if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no limit, or no control groups of version 2
        return total


def _existing(directory: Path) -> Path:
    return directory if directory.exists() or directory == directory.parent else _existing(directory.absolute().parent)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
