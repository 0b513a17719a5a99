"""One ingress process: listens, serves until told to stop, drains, ends."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

import structlog
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserC
from prometheus_client import Counter

from ingress.app import Door
from ingress.protocol import Server
from ingress.publisher import KafkaPublisher, Publisher
from ingress.replies import Reply
from runtime import health, logging, metrics
from runtime.errors import Problem
from runtime.settings import Settings

log = structlog.get_logger(__name__)


def run(settings: Settings) -> int:
    """Runs the ingress until SIGTERM or SIGINT; gives the exit status. Raises `Problem`."""
    logging.setup(settings, "ingress")
    with listen(settings) as listener:
        return run_loop(serve(settings, listener))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Runs `main` on uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises `Problem` when the address cannot be had."""
    host, port = settings.ingress_host, settings.ingress_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1_024)
    except OSError as error:
        raise Problem(
            f"EVENTPUSH_INGRESS_HOST={host} EVENTPUSH_INGRESS_PORT={port} cannot be listened on ({error.strerror})",
            "stop what uses the port, or choose another",
        ) from None


async def serve(
    settings: Settings,
    listener: socket.socket,
    publisher: Publisher | None = None,
    stopped: asyncio.Event | None = None,
) -> int:
    """Serves on `listener` until a signal or `stopped`; gives 0 when all that was begun is finished."""
    if HttpRequestParser is not HttpRequestParserC:
        raise Problem("aiohttp's C parser is not loaded", "install its wheel; AIOHTTP_NO_EXTENSIONS must not be set")
    stopped = stopped or asyncio.Event()
    _stop_on_signals(stopped.set)
    publisher = publisher or KafkaPublisher(settings)
    await publisher.start()
    door = Door(settings, publisher)
    server = make_server(settings, door)
    operators = await health.start(
        settings.ingress_metrics_port, {"kafka": publisher.unreachable}, host=settings.metrics_host
    )
    acceptor = await asyncio.get_running_loop().create_server(server, sock=listener)
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not look at it again, which took 40 ms each time
    log.info("listening", host=settings.ingress_host, port=settings.ingress_port)
    try:
        await stopped.wait()
        door.draining = True
        return await _drain(settings, acceptor, server)
    finally:
        await publisher.stop()
        await health.stop(operators)


def make_server(settings: Settings, door: Door) -> Server:
    """Aiohttp's server with the settings' bounds."""
    return Server(
        door,
        count=_count,
        log_fault=lambda error: log.error("a fault in a connection", error=type(error).__name__),
        header_timeout_s=settings.ingress_header_timeout_s,
        connections_max=settings.ingress_connections_max,
        keepalive_timeout=settings.ingress_keepalive_s,
        max_line_size=settings.ingress_header_max_bytes,
        max_field_size=settings.ingress_header_max_bytes,
        max_headers=settings.ingress_headers_max,
        lingering_time=2.0,
    )


def _count(reply: Reply) -> None:
    _counter(reply.status.value, reply.reason).inc()


@lru_cache  # bounded by the table of reasons
def _counter(status: int, reason: str) -> Counter:
    return metrics.INGRESS_REPLIES.metric.labels(str(status), reason)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not the main thread: a test
            loop.add_signal_handler(number, stop)


async def _drain(settings: Settings, acceptor: asyncio.Server, server: Server) -> int:
    """Accepts no more; every answer now ends its connection; idle ones are closed; the rest has `drain_s`."""
    acceptor.close()
    server.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.ingress_drain_s):
            await server.all_closed()
    log.info("stopped", connections_cut=server.open)
    await server.shutdown(1.0)
    return 0
