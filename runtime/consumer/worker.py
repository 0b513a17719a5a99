"""The life of a Faust worker process: start, run until stopped or failed, shut down."""

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
from runtime.platform.errors import OperatorError

log = structlog.get_logger()

STOP_TIMEOUT_S = 15.0
#: For a failed worker: it may leave the group, but its successor fences what it holds and should start soon.
FAILED_STOP_TIMEOUT_S = 3.0


class Worker:
    """Run an app and its partition tasks; `fail` ends the process with status 1."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """End the process with status 1; its supervisor starts another, which resumes at the last commit."""
        if not self._ended.done():
            self._ended.set_result(error)

    def stop(self) -> None:
        """End the process cleanly, with status 0."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def run(self, app: BatchApp, partition_tasks: PartitionTasks, *beside: Callable[[], Awaitable[None]]) -> int:
        """Run until stopped or failed, with `beside` running concurrently; return the exit status."""
        # Faust creates only the last component of the path.
        await asyncio.to_thread(Path(app.conf.datadir).mkdir, parents=True, exist_ok=True)
        tune_garbage_collector()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        tasks = [asyncio.create_task(self._guard(work)) for work in (app.start, app.crash, *beside)]
        error = await self._ended
        if error is not None:
            if isinstance(error, OperatorError):
                log.error("worker failed", reason=str(error))
            else:
                log.error("worker failed", reason=repr(error), exc_info=error)
        timeout_s = STOP_TIMEOUT_S if error is None else FAILED_STOP_TIMEOUT_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_shut_down(app, partition_tasks, orderly=error is None), timeout_s)
        for task in tasks:
            task.cancel()
        return 0 if error is None else 1

    async def _guard(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except asyncio.CancelledError as error:
            # Unless this worker is ending, something within has let it out: the work would end, and nobody would know.
            self.fail(error)
            raise
        except Exception as error:
            self.fail(error)


def tune_garbage_collector() -> None:
    """Run the garbage collector rarely: a batch's tuples triggered it a hundred times, a third of processing time.

    The threshold is above the objects of four partitions' largest batches: half a million, freed by reference counts.
    """
    gc.freeze()
    gc.set_threshold(600_000, 20, 20)


async def _shut_down(app: BatchApp, partition_tasks: PartitionTasks, *, orderly: bool) -> None:
    if orderly:
        await partition_tasks.close()
    await app.stop()
