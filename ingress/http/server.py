"""One ingress process: listen, serve until stopped, drain."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable

import structlog

from ingress.access.admission import make_admission
from ingress.access.file_watcher import watch
from ingress.endpoint import Endpoint
from ingress.http.connection import Server
from ingress.http.signals import on_stop_signals
from ingress.http.tls import Tls
from ingress.publisher import Publisher
from runtime.adapters.aiohttp import has_c_parser
from runtime.platform import metrics
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

log = structlog.get_logger(__name__)

_IDLE_GRACE_S = 1.0
_GAUGE_INTERVAL_S = 1.0


async def serve(
    settings: Settings,
    listener: socket.socket,
    publisher: Publisher,
    *,
    on_serving: Callable[[], None] = lambda: None,
    stopped: asyncio.Event | None = None,
) -> int:
    """Serve on `listener` until a stop signal or `stopped`; return 0 when every request in progress is answered.

    Raise `OperatorError` for settings that cannot be met.
    """
    if not has_c_parser():
        raise OperatorError(
            "aiohttp's C parser is not loaded", "install aiohttp's wheel, and unset AIOHTTP_NO_EXTENSIONS"
        )
    stopped = stopped or asyncio.Event()
    on_stop_signals(stopped.set)
    admission, tls = make_admission(settings), Tls(settings)
    endpoint = Endpoint(settings, publisher, admission)
    server = make_server(settings, endpoint)
    await publisher.start()
    background = [
        asyncio.create_task(watch([*admission.watchers(), tls.watcher])),
        asyncio.create_task(_update_gauges(endpoint, publisher)),
    ]
    try:
        acceptor = await asyncio.get_running_loop().create_server(
            server,
            sock=listener,
            ssl=tls.context,
            ssl_handshake_timeout=settings.ingress_header_timeout_s if tls.context else None,
        )
        gc.collect()
        gc.freeze()  # what exists now stays: scanning it again took the collector 40 ms each time
        log.info("listening", host=settings.ingress_host, port=settings.ingress_port)
        on_serving()
        await stopped.wait()
        endpoint.draining = True
        await _drain(settings, acceptor, server)
    finally:
        for task in background:
            task.cancel()
        await publisher.stop()
    return 0


def make_server(settings: Settings, endpoint: Endpoint) -> Server:
    """Make aiohttp's server with the limits of the settings."""
    return Server(
        endpoint.handle,
        error_response=endpoint.error_response,
        count=endpoint.metrics.response,
        header_timeout_s=settings.ingress_header_timeout_s,
        keepalive_s=settings.ingress_keepalive_s,
        connections_max=settings.ingress_connections_max,
        max_line_size=settings.ingress_header_max_bytes,
        max_field_size=settings.ingress_header_max_bytes,
        max_headers=settings.ingress_headers_max,
    )


async def _update_gauges(endpoint: Endpoint, publisher: Publisher) -> None:
    """Show what is in flight, every second."""
    while True:
        metrics.INGRESS_INFLIGHT_REQUESTS.metric.set(endpoint.flow.inflight)
        metrics.INGRESS_INFLIGHT_BYTES.metric.set(publisher.held_bytes)
        await asyncio.sleep(_GAUGE_INTERVAL_S)


async def _drain(settings: Settings, acceptor: asyncio.Server, server: Server) -> None:
    """Accept no more, end connections with their next response, close idle ones, wait up to `ingress_drain_s`."""
    acceptor.close()
    server.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.ingress_drain_s):
            # A client that sends within this time reads `Connection: close`; closing at once could cross a request.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.all_closed(), _IDLE_GRACE_S)
            server.close_idle()
            await server.all_closed()
    log.info("stopped", connections_cut=server.open)
    await server.shutdown(1.0)
