"""Several ingress processes on one port: a small parent keeps its children running.

The parent holds the only listening socket and every child inherits it. So there is one accept queue, and it outlives
every child: a child that stops leaves waiting connections to the others. (With `SO_REUSEPORT` each child has its own
queue, and connections in it are reset when the child closes it.)

SIGTERM and SIGINT stop the children gracefully, then the parent. SIGHUP replaces them one at a time: the new child
serves before the old one is stopped. A child that dies is restarted after a delay that grows to 10 s. The parent serves
`/metrics` for all of them, summed over files that the children write (prometheus_client's multi-process mode).
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
from runtime.platform.backoff import Backoff
from runtime.platform.event_loop import run_loop
from runtime.platform.settings import Settings

log = structlog.get_logger(__name__)

_spawn = multiprocessing.get_context("spawn")  # a fresh interpreter, without the parent's locks and threads
_RESTART_FIRST_S, _RESTART_MAX_S = 0.2, 10.0
_START_TIMEOUT_S = 30.0
_HEALTHY_AFTER_S = 30.0


def run_many(settings: Settings, listener: socket.socket) -> int:
    """Run `settings.ingress_processes` children on `listener` until a signal; return the exit status."""
    with shared_metrics():
        return run_loop(_Parent(settings, listener).run())


@contextlib.contextmanager
def shared_metrics() -> Iterator[None]:
    """Share a directory where children that are started meanwhile write their metrics."""
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
        """Wait until it serves; return False if it dies or takes too long."""
        try:
            await asyncio.wait_for(readable(self._serving.fileno()), _START_TIMEOUT_S)
            return bool(self._serving.recv())
        except (TimeoutError, EOFError):
            return False

    async def ended(self) -> None:
        """Wait for its end."""
        await readable(self.process.sentinel)
        self.process.join()
        self._serving.close()
        mark_process_dead(self.process.pid)  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Ask it to finish its requests and end."""
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
        restarters = [asyncio.create_task(self._keep_running(slot)) for slot in range(self._settings.ingress_processes)]
        replacer = asyncio.create_task(self._replace_on_request())
        log.info("serving", processes=self._settings.ingress_processes, port=self._settings.ingress_port)
        await self._stopped.wait()
        replacer.cancel()
        for child in self._children.values():
            child.stop()
        await asyncio.gather(*restarters)
        await health.stop(operators)
        return 0

    async def _keep_running(self, slot: int) -> None:
        """Restart a slot's child whenever it dies."""
        backoff = Backoff(_RESTART_FIRST_S, _RESTART_MAX_S)
        while not self._stopped.is_set():
            child = self._children[slot] = _Child(self._settings, self._listener, slot)
            while True:  # a replaced child ends as planned; its successor counts
                await child.ended()
                successor = self._children[slot]
                if successor is child:
                    break
                child = successor
            if self._stopped.is_set():
                return
            lived_s = asyncio.get_running_loop().time() - child.started_at
            if lived_s > _HEALTHY_AFTER_S:
                backoff.reset()
            delay_s = backoff.next_s()
            exit_status = child.process.exitcode
            log.error("ingress process died, restarting", exit_status=exit_status, delay_s=round(delay_s, 1))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), delay_s)

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
                    log.error("new ingress process does not start; keeping the old ones")
                    new.stop()
                    break
                self._children[slot] = new
                old.stop()
            else:
                log.info("all ingress processes replaced")

    async def _missing(self) -> str | None:
        alive = sum(child.process.is_alive() for child in self._children.values())
        wanted = self._settings.ingress_processes
        return None if alive == wanted else f"{alive} of {wanted} processes running"


def _child_main(settings: Settings, listener: socket.socket, serving: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops the children
    # Imported here: prometheus_client must find the shared directory when it makes a metric.
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
    """Notice when the parent was killed: it can no longer stop its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        await readable(parent.sentinel)
        stopped.set()
