"""How long `eventpush topics grow` takes: a window of random identities, moved from 4 to 12 partitions.

python -m bench.adding_partitions --identities 2000000
"""

import argparse
import asyncio
import time

from bench.benchmark_stack import benchmark_stack
from bench.seeding import seed_window
from eventpush.growth.grow import grow
from runtime.platform.settings import Settings
from schemas.topics import WINDOW

_BEFORE, _AFTER = 4, 12


async def measure(identities: int) -> None:
    """Fill the window, grow, and print what took how long."""
    async with benchmark_stack(topic_partitions=_BEFORE) as stack:
        await seed_window(stack, identities)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        await _grow(stack.settings, identities)
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        print(f"{took_s:.1f} s in all, {cpu_s:.1f} CPU-seconds of the command")


async def _grow(settings: Settings, identities: int) -> None:
    result = await grow(settings, _AFTER, print)
    assert result.moved[WINDOW] == identities
    print(result.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=2_000_000)
    asyncio.run(measure(parser.parse_args().identities))
