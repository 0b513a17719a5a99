"""Several ingress processes on one port: a small parent that keeps them running.

The parent holds the one listening socket and every child inherits it. So there is one queue of connections that wait
to be accepted, and it outlives every child: a child that stops leaves the waiting ones to the others. (With
`SO_REUSEPORT` each child has a queue of its own, and what waits in it is reset when the child closes it.)

SIGTERM and SIGINT stop the children gracefully, then the parent. SIGHUP replaces them one at a time: the new child
serves before the old one is told to stop. A child that dies is started again, after a pause that grows to 10 s.
The parent serves `/metrics` for all, added up through files that the children write (prometheus_client's
multi-process mode).
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import structlog
from prometheus_client.multiprocess import mark_process_dead

from ingress.http.signals import on_stop_signals, readable
from runtime.platform import health, logging
from runtime.platform.event_loop import run_loop
from runtime.platform.settings import Settings

log = structlog.get_logger(__name__)

_spawn = multiprocessing.get_context("spawn")  # a fresh interpreter: no locks or threads of the parent's
_PAUSE_S = (0.2, 10.0)
_START_TIMEOUT_S = 30.0
_HEALTHY_AFTER_S = 30.0


def run_many(settings: Settings, listener: socket.socket) -> int:
    """Runs `settings.ingress_processes` children on `listener` until a signal; gives the exit status."""
    with shared_metrics():
        return run_loop(_Parent(settings, listener).run())


@contextlib.contextmanager
def shared_metrics() -> Iterator[None]:
    """A directory in which the children, started inside, leave their metrics."""
    with tempfile.TemporaryDirectory(prefix="eventpush-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


class _Child:
    """One child: its process, and whether it serves."""

    def __init__(self, settings: Settings, listener: socket.socket, number: int) -> None:
        self.number = number
        self.started_at = asyncio.get_running_loop().time()
        self._serving, theirs = _spawn.Pipe(duplex=False)
        self.process: BaseProcess = _spawn.Process(
            target=_child_main, args=(settings, listener, theirs), name=f"ingress-{number}"
        )
        self.process.start()
        theirs.close()

    async def serves(self) -> bool:
        """Waits until it serves; False if it dies or takes too long."""
        try:
            await asyncio.wait_for(readable(self._serving.fileno()), _START_TIMEOUT_S)
            return bool(self._serving.recv())
        except (TimeoutError, EOFError):
            return False

    async def ended(self) -> None:
        """Waits for its end."""
        await readable(self.process.sentinel)
        self.process.join()
        self._serving.close()
        mark_process_dead(self.process.pid)  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Asks it to finish what it has begun."""
        if self.process.is_alive():
            self.process.terminate()


class _Parent:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._children: dict[int, _Child] = {}
        self._stopped = asyncio.Event()
        self._replace = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        on_stop_signals(self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._replace.set)
        operators = await health.start(
            self._settings.ingress_metrics_port, {"processes": self._missing}, host=self._settings.metrics_host
        )
        keepers = [asyncio.create_task(self._keep(slot)) for slot in range(self._settings.ingress_processes)]
        replacer = asyncio.create_task(self._replace_on_request())
        log.info("serving", processes=self._settings.ingress_processes, port=self._settings.ingress_port)
        await self._stopped.wait()
        replacer.cancel()
        for child in self._children.values():
            child.stop()
        await asyncio.gather(*keepers)
        await health.stop(operators)
        return 0

    async def _keep(self, slot: int) -> None:
        """One slot's children, one after the other."""
        pause_s, longest_s = _PAUSE_S
        while not self._stopped.is_set():
            child = self._children[slot] = _Child(self._settings, self._listener, slot)
            while True:  # a child that was replaced ends; its successor is kept then
                await child.ended()
                successor = self._children[slot]
                if successor is child:
                    break
                child = successor
            if self._stopped.is_set():
                return
            lived_s = asyncio.get_running_loop().time() - child.started_at
            pause_s = _PAUSE_S[0] if lived_s > _HEALTHY_AFTER_S else min(pause_s * 2, longest_s)
            log.error("an ingress process died; starting another", exit_status=child.process.exitcode, pause_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), pause_s)

    async def _replace_on_request(self) -> None:
        while True:
            await self._replace.wait()
            self._replace.clear()
            for slot, old in list(self._children.items()):
                new = _Child(self._settings, self._listener, slot)
                try:
                    serves = await new.serves()
                except asyncio.CancelledError:
                    new.stop()
                    raise
                if not serves:
                    log.error("a new ingress process does not start; the old ones stay")
                    new.stop()
                    break
                self._children[slot] = new
                old.stop()
            else:
                log.info("all ingress processes replaced")

    async def _missing(self) -> str | None:
        alive = sum(child.process.is_alive() for child in self._children.values())
        wanted = self._settings.ingress_processes
        return None if alive == wanted else f"{alive} of {wanted} processes run"


def _child_main(settings: Settings, listener: socket.socket, serving: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent tells the children
    # Imported here: what counts must find the shared directory when it is made.
    from ingress.http.server import serve  # noqa: PLC0415
    from ingress.publisher import KafkaPublisher  # noqa: PLC0415
    from runtime.adapters import aiokafka  # noqa: PLC0415

    logging.setup(settings, multiprocessing.current_process().name)

    async def main() -> int:
        stopped = asyncio.Event()
        orphaned = asyncio.create_task(_set_when_orphaned(stopped))
        try:
            aiokafka.install()
            publisher = KafkaPublisher(settings)
            return await serve(settings, listener, publisher, on_serving=lambda: serving.send(True), stopped=stopped)
        finally:
            orphaned.cancel()

    sys.exit(run_loop(main()))


async def _set_when_orphaned(stopped: asyncio.Event) -> None:
    """A parent that was killed cannot tell its children to stop: they notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        await readable(parent.sentinel)
        stopped.set()
