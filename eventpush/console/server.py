"""Serve the console: NiceGUI's application behind the guard, on one port."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
import uvicorn
from fastapi import FastAPI
from nicegui import app as pages
from nicegui import ui

from eventpush.console import routes
from eventpush.console.guard import Guard
from eventpush.console.sessions import Sessions
from eventpush.console.sources import Sources
from runtime.platform.errors import OperatorError
from runtime.platform.origin import is_loopback
from runtime.platform.secret_files import console_token
from runtime.platform.settings import Settings

log = structlog.get_logger()

_STOP_TIMEOUT_S = 3
_RECONNECT_TIMEOUT_S = 10.0  # how long the server keeps a page whose connection broke
_MESSAGES_KEPT = 50  # for such a page
_MESSAGE_MAX_BYTES = 65_536  # from a browser
#: Libraries that log every connection.
_QUIET = ("uvicorn", "websockets", "engineio", "socketio")


@dataclass(frozen=True)
class _Listener:
    host: str
    port: int

    def bind(self) -> socket.socket:
        """Return a bound socket; raise `OperatorError` if the port cannot be used."""
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise OperatorError(
                f"the console cannot listen on {self.host}:{self.port} ({error.strerror or error})",
                "stop the process that uses it, or set EVENTPUSH_CONSOLE_HOST and EVENTPUSH_CONSOLE_PORT",
            ) from None


class _Server(uvicorn.Server):
    """A server whose process ends with status 0 after SIGTERM or SIGINT; uvicorn's own raises the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on either signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. Raise `OperatorError` for unusable settings."""
    sources = Sources(settings)
    try:
        return await serve(settings, sources)
    finally:
        await sources.close()


async def serve(settings: Settings, sources: Sources) -> int:
    """Serve pages that show these sources, as `run` does."""
    token = console_token(settings)
    if not token and not is_loopback(settings.console_host):
        raise OperatorError(
            f"EVENTPUSH_CONSOLE_HOST={settings.console_host} is reached from other machines, but there is no token",
            "set EVENTPUSH_CONSOLE_TOKEN, or listen on 127.0.0.1",
        )
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    listener = _Listener(settings.console_host, settings.console_port).bind()
    sessions = Sessions(token)
    config = uvicorn.Config(
        Guard(_application(sources, sessions), settings.console_host, sessions),
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=_MESSAGE_MAX_BYTES,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )
    log.info("console started", address=f"http://{settings.console_host}:{settings.console_port}")
    await _Server(config).serve(sockets=[listener])
    log.info("console stopped")
    return 0


def _application(sources: Sources, sessions: Sessions) -> FastAPI:
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    routes.add(sources, sessions)
    ui.run_with(
        application,
        title="eventpush",
        favicon=routes.FAVICON,
        dark=None,
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT_TIMEOUT_S,
        message_history_length=_MESSAGES_KEPT,
        show_welcome_message=False,
    )
    pages.config.socket_io_js_transports = ["websocket"]
    return application
