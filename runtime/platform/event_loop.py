"""The event loop of a process: uvloop where there is one."""

import asyncio
from collections.abc import Coroutine
from typing import Any


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
