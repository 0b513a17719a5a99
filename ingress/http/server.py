"""One ingress process: listens, serves until told to stop, drains, ends."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable

import structlog
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserC

from ingress.access.admission import admission
from ingress.access.file_watcher import watch
from ingress.endpoint import Endpoint
from ingress.http.connection import Server
from ingress.http.signals import on_stop_signals
from ingress.http.tls import Tls
from ingress.publisher import Publisher
from runtime.platform import metrics
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

log = structlog.get_logger(__name__)

_IDLE_GRACE_S = 1.0


async def serve(
    settings: Settings,
    listener: socket.socket,
    publisher: Publisher,
    *,
    on_serving: Callable[[], None] = lambda: None,
    stopped: asyncio.Event | None = None,
) -> int:
    """
    Serves on `listener` until a signal or `stopped`; gives 0 when all that was begun is finished.

    Raises `OperatorError` when what the settings ask for cannot be had.
    """
    if HttpRequestParser is not HttpRequestParserC:
        raise OperatorError(
            "aiohttp's C parser is not loaded", "install its wheel; AIOHTTP_NO_EXTENSIONS must not be set"
        )
    stopped = stopped or asyncio.Event()
    on_stop_signals(stopped.set)
    admitted, tls = admission(settings), Tls(settings)
    door = Endpoint(settings, publisher, admitted)
    server = make_server(settings, door)
    await publisher.start()
    beside = [
        asyncio.create_task(watch([*admitted.reloadings(), tls.reloading])),
        asyncio.create_task(_gauge(door, publisher)),
    ]
    try:
        acceptor = await asyncio.get_running_loop().create_server(
            server,
            sock=listener,
            ssl=tls.context,
            ssl_handshake_timeout=settings.ingress_header_timeout_s if tls.context else None,
        )
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again, which took 40 ms each time
        log.info("listening", host=settings.ingress_host, port=settings.ingress_port)
        on_serving()
        await stopped.wait()
        door.draining = True
        await _drain(settings, acceptor, server)
    finally:
        for task in beside:
            task.cancel()
        await publisher.stop()
    return 0


def make_server(settings: Settings, door: Endpoint) -> Server:
    """Aiohttp's server with the settings' bounds."""
    return Server(
        door,
        prompt=door.prompt,
        count=door.tally.reply,
        header_timeout_s=settings.ingress_header_timeout_s,
        connections_max=settings.ingress_connections_max,
        keepalive_timeout=settings.ingress_keepalive_s,
        max_line_size=settings.ingress_header_max_bytes,
        max_field_size=settings.ingress_header_max_bytes,
        max_headers=settings.ingress_headers_max,
        lingering_time=0,  # ours does it
    )


async def _gauge(door: Endpoint, publisher: Publisher) -> None:
    """Shows each second what is being worked on."""
    while True:
        metrics.INGRESS_INFLIGHT_REQUESTS.metric.set(door.inflight)
        metrics.INGRESS_INFLIGHT_BYTES.metric.set(publisher.held_bytes)
        await asyncio.sleep(1)


async def _drain(settings: Settings, acceptor: asyncio.Server, server: Server) -> None:
    """Accepts no more; every answer now ends its connection; idle ones are closed; the rest has `drain_s`."""
    acceptor.close()
    server.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.ingress_drain_s):
            # Whoever sends within this pause is told that the connection ends; closing at once could cross a request.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.all_closed(), _IDLE_GRACE_S)
            server.close_idle()
            await server.all_closed()
    log.info("stopped", connections_cut=server.open)
    await server.shutdown(1.0)
