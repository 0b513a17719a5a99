"""Large bodies, a little at a time: nobody waits for one of them to be inflated and parsed as a whole.

A few kilobytes of gzip can be megabytes of JSON. They take tens or hundreds of milliseconds, in which a process with
one loop would answer nobody, and threads would not help: parsers do not let go of the interpreter. So this work is cut
into steps, after a few of which the loop has its turn, and one large body is worked on at a time: however many there
are, everybody else waits for a few steps, and no more than one body stands decompressed in memory.
"""

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import TypeVar

TURN_S = 0.002

Step = TypeVar("Step")


class TimeSlicing:
    """Takes turns with everything else that the loop does."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def take(self, steps: Iterator[Step]) -> list[Step]:
        """All that the steps give, in order. What fits into one turn waits for nobody."""
        taken: list[Step] = []
        done = _turn(steps, taken)
        if not done:
            async with self._one_at_a_time:
                while not done:
                    await asyncio.sleep(0)
                    done = _turn(steps, taken)
        return taken


def _turn(steps: Iterator[Step], taken: list[Step]) -> bool:
    """Steps until a turn's time is over. Gives whether there are no more."""
    ends = perf_counter() + TURN_S
    for step in steps:
        taken.append(step)
        if perf_counter() > ends:
            return False
    return True
