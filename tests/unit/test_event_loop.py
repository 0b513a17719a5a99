"""How a process ends."""

import subprocess
import sys

_PROGRAM = """
import asyncio, atexit, threading, time
from runtime.platform.event_loop import run_process

atexit.register(print, "taken apart")

async def main():
    if {daemon}:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    print("said", end=" ")
    return 3

run_process(main())
"""


def ended(*, daemon: bool) -> tuple[int, str]:
    """The status and the output of a process that ends while a daemon thread runs, or with none."""
    command = [sys.executable, "-c", _PROGRAM.format(daemon=daemon)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.strip()


def test_a_process_ends_with_its_status_whatever_still_runs() -> None:
    """With a daemon thread, in C perhaps, the interpreter is not taken apart; what was printed is not lost."""
    assert ended(daemon=True) == (3, "said")
    assert ended(daemon=False) == (3, "said taken apart")
