"""How quickly a worker's state is rebuilt: identities per second, from the changelog."""

import time

from bench.results import Section
from bench.seeding import seed_window
from bench.stack import Stack, scrape, stack, wait_ready, wait_until

_IDENTITIES = "eventpush_streams_window_identities"


async def measure(*, quick: bool) -> Section:
    """Time a worker's start with five million identities to read, less its start with none."""
    section = Section("recovery")
    identities = 500_000 if quick else 5_000_000
    async with stack() as made:
        await _start(made, 0)  # the first start of all reads its code from disk
        empty_s, empty_cpu_s = await _start(made, 0)
        await seed_window(made, identities)
        full_s, full_cpu_s = await _start(made, identities)
    note = f"{identities / 1e6:g} million in {full_s:.1f} s, an empty start takes {empty_s:.1f} s"
    rebuilt_s = max(full_s - empty_s, full_cpu_s - empty_cpu_s)  # on a busy machine starts differ by seconds
    section.add("state rebuilt, wall time", identities / rebuilt_s, "identities/s", target=150_000, note=note)
    section.add("state rebuilt", identities / (full_cpu_s - empty_cpu_s), "identities per CPU-second")
    return section


async def _start(made: Stack, identities: int) -> tuple[float, float]:
    """Wall and CPU-seconds until a worker is ready and has so many identities."""
    port = made.settings.streams_metrics_port
    began = time.monotonic()
    worker = made.start_command("streams")
    await wait_ready(worker, port)
    await wait_until(lambda: scrape(port).get(_IDENTITIES, -1) >= identities, worker, "the window")
    wall_s, cpu_s = time.monotonic() - began, worker.cpu_s()
    await worker.stop()
    return wall_s, cpu_s
