"""What an ingress process waits for: signals that stop it, and pipes."""

import asyncio
import contextlib
import signal
from collections.abc import Callable


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
