"""The event loop of a process: uvloop where there is one."""

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, for this thread or another."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` to its end; return its exit status."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def run_process(main: Coroutine[Any, Any, int]) -> NoReturn:
    """Run `main` to its end, and end the process with its exit status.

    A worker that has failed does not wait for its consumer's thread. The interpreter must not be taken apart around it:
    now and then that ended the process with SIGSEGV, and not with the status.
    """
    status = run_loop(main)
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
