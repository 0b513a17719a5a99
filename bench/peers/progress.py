"""Progress reports of a peer: JSON lines on standard output, with its CPU-seconds."""

import json
import os
import resource
import time
from pathlib import Path

_EVERY = 1_000
_PAGE_BYTES = resource.getpagesize()


class Progress:
    """Counts processed raw events and reports every thousand of them."""

    def __init__(self) -> None:
        self._events = 0
        self._next = _EVERY

    def add(self, events: int = 1) -> None:
        """Count `events` more."""
        self._events += events
        if self._events >= self._next:
            self._next += _EVERY
            pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
            sample = {
                "events": self._events,
                "cpu_s": time.process_time(),
                "wall_s": time.monotonic(),
                "rss_bytes": pages * _PAGE_BYTES,
            }
            os.write(1, json.dumps(sample).encode() + b"\n")  # Faust redirects `sys.stdout`
