"""How far a process is and what it has cost by then; the marginal cost between two such moments.

Cost is counted from the first progress to the last: what a process spends to start is not in it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Child
from bench.stack import scrape

_POLL_S = 0.2


@dataclass(frozen=True)
class Sample:
    """So many events at a moment; CPU-seconds and resident memory of the process (or of several, added up)."""

    events: float
    cpu_s: float
    wall_s: float
    rss_bytes: float
    batches: float = 0  # of a stream worker: its transactions
    beside_cpu_s: float = 0  # CPU-seconds of a second process

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(
            self.events + other.events, self.cpu_s + other.cpu_s, max(self.wall_s, other.wall_s),
            self.rss_bytes + other.rss_bytes, self.batches + other.batches, self.beside_cpu_s + other.beside_cpu_s,
        )  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """The marginal cost of events."""

    events: float
    per_cpu_s: float
    per_s: float
    cpu_s_per_million: float
    rss_mb: float  # the highest seen

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Cost":
        """From the first sample with progress to the last one."""
        begun = [sample for sample in samples if sample.events]
        first, last = begun[0], begun[-1]
        events, cpu_s, wall_s = last.events - first.events, last.cpu_s - first.cpu_s, last.wall_s - first.wall_s
        if events <= 0 or cpu_s <= 0:
            raise ValueError(f"too few events to measure: {first} to {last}")
        rss_mb = max(sample.rss_bytes for sample in samples) / 2**20
        return cls(events, events / cpu_s, events / wall_s, cpu_s / events * 1e6, rss_mb)


async def follow(
    take: Callable[[], Sample | None], children: Sequence[Child], until_events: float, timeout_s: float
) -> list[Sample]:
    """Sample until so many events are done or the time is over."""
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


def from_metrics(port: int, counter: str, child: Child, *, beside: Child | None = None) -> Callable[[], Sample | None]:
    """Sample one of our processes: a counter of its `/metrics`, and what another one (`beside`) costs."""

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
    """Sample a peer: the last line of JSON in its log (see `bench.peers.progress`)."""

    def take() -> Sample | None:
        for line in reversed(log_file.read_text(errors="replace").splitlines()):
            if line.startswith('{"events"'):
                return Sample(**json.loads(line))
        return None

    return take


def first_in_log(log_file: Path) -> Sample:
    """Return the first sample that a peer reported."""
    line = next(line for line in log_file.read_text().splitlines() if line.startswith('{"events"'))
    return Sample(**json.loads(line))
