"""Samples of a process's progress and cost, and the marginal cost between two samples.

Cost is counted from the first progress to the last, so the start of the process is excluded.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.benchmark_stack import scrape
from bench.measured_process import MeasuredProcess

_POLL_S = 0.2


@dataclass(frozen=True)
class Sample:
    """Events done so far, with CPU-seconds and resident memory of the process (or the sum over several)."""

    events: float
    cpu_s: float
    wall_s: float
    rss_bytes: float
    batches: float = 0  # transactions of a stream worker
    beside_cpu_s: float = 0  # CPU-seconds of a second process

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(
            self.events + other.events, self.cpu_s + other.cpu_s, max(self.wall_s, other.wall_s),
            self.rss_bytes + other.rss_bytes, self.batches + other.batches, self.beside_cpu_s + other.beside_cpu_s,
        )  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """The marginal cost of an event."""

    events: float
    per_cpu_s: float
    per_s: float
    cpu_s_per_million: float
    rss_mb: float  # maximum

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Cost":
        """Compute the cost between the first sample with progress and the last one."""
        begun = [sample for sample in samples if sample.events]
        first, last = begun[0], begun[-1]
        events, cpu_s, wall_s = last.events - first.events, last.cpu_s - first.cpu_s, last.wall_s - first.wall_s
        if events <= 0 or cpu_s <= 0:
            raise ValueError(f"too few events to measure: {first} to {last}")
        rss_mb = max(sample.rss_bytes for sample in samples) / 2**20
        return cls(events, events / cpu_s, events / wall_s, cpu_s / events * 1e6, rss_mb)


async def follow(
    take: Callable[[], Sample | None], children: Sequence[MeasuredProcess], until_events: float, timeout_s: float
) -> list[Sample]:
    """Take samples until `until_events` are done or the timeout expires."""
    samples: list[Sample] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        sample = await asyncio.to_thread(take)
        if sample is not None:
            samples.append(sample)
            if sample.events >= until_events:
                break
        for child in children:
            child.require_alive()
        await asyncio.sleep(_POLL_S)
    return samples


def from_metrics(
    port: int, counter: str, child: MeasuredProcess, *, beside: MeasuredProcess | None = None
) -> Callable[[], Sample | None]:
    """Sample one of our processes by a counter on its `/metrics`, with the CPU time of a second one (`beside`)."""

    def take() -> Sample | None:
        cpu_s = child.cpu_s()
        values = scrape(port)
        if counter not in values:
            return None
        batches = values.get("eventpush_streams_batch_events_count", 0)
        beside_cpu_s = beside.cpu_s() if beside else 0
        return Sample(values[counter], cpu_s, time.monotonic(), child.rss_bytes(), batches, beside_cpu_s)

    return take


def from_log(log_file: Path) -> Callable[[], Sample | None]:
    """Sample a peer by the last complete JSON line of its log (see `bench.peers.progress`)."""

    def take() -> Sample | None:
        for line in reversed(log_file.read_text(errors="replace").splitlines(keepends=True)):
            if line.startswith('{"events"') and line.endswith("\n"):
                return Sample(**json.loads(line))
        return None

    return take


def first_in_log(log_file: Path) -> Sample:
    """Return the first sample that a peer reported."""
    line = next(line for line in log_file.read_text().splitlines() if line.startswith('{"events"'))
    return Sample(**json.loads(line))
