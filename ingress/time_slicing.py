"""Cooperative time slicing: a large body is decompressed and parsed a few milliseconds at a time.

A few kilobytes of gzip can be megabytes of JSON: tens or hundreds of milliseconds in which a process with one loop
would answer no other request. Threads do not help, for parsers hold the interpreter's lock. So the work is cut into
steps, the loop runs between slices of them, and one large body is worked on at a time: other requests never wait for
more than a slice, and no more than one decompressed body is in memory.
"""

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import TypeVar

SLICE_S = 0.002

Step = TypeVar("Step")


class TimeSlicing:
    """A scheduler that shares the loop between large bodies and everything else."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def run(self, steps: Iterator[Step]) -> list[Step]:
        """Exhaust `steps`, yielding to the loop after each slice. Work that fits in one slice never yields."""
        results: list[Step] = []
        done = _run_slice(steps, results)
        if not done:
            async with self._one_at_a_time:
                while not done:
                    await asyncio.sleep(0)
                    done = _run_slice(steps, results)
        return results


def _run_slice(steps: Iterator[Step], results: list[Step]) -> bool:
    """Advance for one time slice; return True when exhausted."""
    ends = perf_counter() + SLICE_S
    for step in steps:
        results.append(step)
        if perf_counter() > ends:
            return False
    return True
