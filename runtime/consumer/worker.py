"""The life of a Faust worker process: start, work until told to stop or something breaks, let go in order."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from runtime.adapters.faust import BatchApp
from runtime.consumer.partition_tasks import PartitionTasks

log = structlog.get_logger()

STOP_TIMEOUT_S = 15.0
#: Of one that failed: it may leave the group, but what it holds is fenced off, and its successor waits to be started.
BROKEN_STOP_TIMEOUT_S = 3.0


class Worker:
    """Runs an app and its tasks; `fail` may be called from anywhere and ends the process with status 1."""

    def __init__(self) -> None:
        self._over: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """End the process: its supervisor starts another one, which begins at the last commit."""
        if not self._over.done():
            self._over.set_result(error)

    def stop(self) -> None:
        """End the process in good order."""
        if not self._over.done():
            self._over.set_result(None)

    async def run(self, app: BatchApp, partition_tasks: PartitionTasks, *beside: Callable[[], Awaitable[None]]) -> int:
        """Run until stopped or broken; `beside` run for as long as the app does. Returns the exit status."""
        await asyncio.to_thread(Path(app.conf.datadir).mkdir, parents=True, exist_ok=True)  # Faust makes the last part
        calm_collector()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        tasks = [asyncio.create_task(self._guard(work)) for work in (app.start, lambda: _crash_of(app), *beside)]
        error = await self._over
        if error is not None:
            log.error("worker ends", reason=repr(error), exc_info=error)
        timeout_s = STOP_TIMEOUT_S if error is None else BROKEN_STOP_TIMEOUT_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_let_go(app, partition_tasks, orderly=error is None), timeout_s)
        for task in tasks:
            task.cancel()
        return 0 if error is None else 1

    async def _guard(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except Exception as error:
            self.fail(error)


def calm_collector() -> None:
    """Let the garbage collector look seldom: a batch's tuples made it run a hundred times, a third of the judging.

    The objects of four partitions' largest batches, half a million that will go by themselves, do not make it run.
    """
    gc.freeze()
    gc.set_threshold(600_000, 20, 20)


async def _crash_of(app: BatchApp) -> None:
    """Waits until Faust has crashed, and raises what it crashed of."""
    await app._crashed.wait()
    raise app.crash_reason or RuntimeError("Faust crashed without a reason")


async def _let_go(app: BatchApp, partition_tasks: PartitionTasks, *, orderly: bool) -> None:
    if orderly:
        await partition_tasks.close()
    await app.stop()
