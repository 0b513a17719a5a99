"""The event loop of a process, and the signals that stop it."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Runs `main` on uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def on_stop_signals(stop: Callable[[], None]) -> None:
    """Calls `stop` on SIGTERM and SIGINT (where signals can be handled: not outside the main thread)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, stop)


async def readable(fd: int) -> None:
    """Waits until `fd` can be read: a pipe that was written to, or whose other end has died."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
