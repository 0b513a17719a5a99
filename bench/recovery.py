"""How fast a worker restores its state from the changelog: identities per second."""

import time

from bench.benchmark_stack import BenchmarkStack, benchmark_stack, scrape, wait_ready, wait_until
from bench.results import Section
from bench.seeding import seed_window

_IDENTITIES = "eventpush_streams_window_identities"


async def measure(*, quick: bool) -> Section:
    """Measure a worker's start with five million identities, minus its start with none."""
    section = Section("recovery")
    identities = 500_000 if quick else 5_000_000
    async with benchmark_stack() as stack:
        await _start(stack, 0)  # the very first start reads the code from disk
        empty_s, empty_cpu_s = await _start(stack, 0)
        await seed_window(stack, identities)
        full_s, full_cpu_s = await _start(stack, identities)
    note = f"{identities / 1e6:g} million in {full_s:.1f} s, an empty start takes {empty_s:.1f} s"
    rebuilt_s = max(full_s - empty_s, full_cpu_s - empty_cpu_s)  # on a busy machine, start times vary by seconds
    section.add("state rebuilt, wall time", identities / rebuilt_s, "identities/s", target=150_000, note=note)
    section.add("state rebuilt", identities / (full_cpu_s - empty_cpu_s), "identities per CPU-second")
    return section


async def _start(stack: BenchmarkStack, identities: int) -> tuple[float, float]:
    """Return wall and CPU-seconds until a worker is ready and has all identities."""
    port = stack.settings.streams_metrics_port
    began = time.monotonic()
    worker = stack.start_command("streams")
    await wait_ready(worker, port)
    await wait_until(lambda: scrape(port).get(_IDENTITIES, -1) >= identities, worker, "the window")
    wall_s, cpu_s = time.monotonic() - began, worker.cpu_s()
    await worker.stop()
    return wall_s, cpu_s
