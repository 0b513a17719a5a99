"""A wall clock that a test sets forwards and backwards under running processes.

The offset stands in a file that each process maps into its memory; `follow` has a process add it to `time.time` and
`time.time_ns`. Monotonic clocks go on as ever, as they do when an operating system's clock is set.
"""

import mmap
import struct
import time
from pathlib import Path

_OFFSET_NS = struct.Struct("<q")


class Clock:
    """The offset of the clock of all processes that follow the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(_OFFSET_NS.pack(0))

    def set(self, ahead_s: float) -> None:
        """The clock is that far ahead of the true one, from now on."""
        with self.file.open("r+b") as opened:  # in place: what is mapped must stay the file
            opened.write(_OFFSET_NS.pack(int(ahead_s * 1e9)))


def follow(file: Path) -> None:
    """Have this process's wall clock follow the offset in the file."""
    with file.open("rb") as opened:
        offset = mmap.mmap(opened.fileno(), _OFFSET_NS.size, access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        return true_ns() + int(_OFFSET_NS.unpack_from(offset)[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
