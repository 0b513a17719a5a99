"""The process of `eventpush sse`: the event stream on the operators' port, beside its metrics and health."""

import asyncio
import signal

import structlog
from aiohttp import web

from eventpush.sse.stream import PATH, EventStream
from ingress.access.file_watcher import watch
from ingress.access.tokens import Tokens
from runtime.kafka.connection import connection
from runtime.kafka.topic_admin import admin
from runtime.platform import health
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

log = structlog.get_logger()


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. Raise `OperatorError` for unusable settings."""
    tokens = Tokens(settings, "sse_tokens")
    if not tokens:
        raise OperatorError(
            "neither EVENTPUSH_SSE_TOKENS nor EVENTPUSH_SSE_TOKENS_FILE is set, and the event stream needs a token",
            "make one with `eventpush token new NAME`",
        )
    connection(settings)  # unusable settings of Kafka end the process now, not the first request
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stream = EventStream(settings, tokens)
    route = web.get(PATH, stream.handle, allow_head=False)
    operators = await health.start(
        settings.sse_port, {"kafka": lambda: _kafka(settings)}, host=settings.metrics_host, routes=[route]
    )
    watching = asyncio.create_task(watch([tokens.watcher]))
    log.info("event stream started", address=f"http://{settings.metrics_host}:{settings.sse_port}{PATH}")
    try:
        await stopped.wait()
    finally:
        watching.cancel()
        await stream.stop()
        await health.stop(operators)
    log.info("event stream stopped")
    return 0


async def _kafka(settings: Settings) -> str | None:
    """Return what is wrong with Kafka, None if it answers."""
    try:
        async with admin(settings) as client:
            await client.list_topics()
    except OperatorError as problem:
        return problem.what
    return None
