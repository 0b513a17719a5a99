"""Structured logs: one line per problem, as text for people or as JSON for machines.

`setup` is called once per process; modules then log with `structlog.get_logger()`. What other libraries log through
the standard library comes out in the same shape. Secrets, tokens and events' contents are never passed to a logger;
the names of such fields are masked all the same, in case code logs one by mistake.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.platform.settings import Settings

#: Fields whose value never appears in a log, whatever is passed.
MASKED = frozenset(
    {"authorization", "token", "tokens", "secret", "secrets", "password", "signature", "body", "payload"}
)

#: Libraries that log every attempt of their own retries: our own lines say what happened, once.
QUIET = ("aiokafka", "aiohttp.access", "asyncio")


#: Tracebacks without the values of variables: those may be an event, a token, a secret.
_exceptions = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def setup(settings: Settings, process_name: str, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (default: standard error), each line with the time and the process's name."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process_name),
        _masked,
    ]
    renderer: list[Processor] = (
        [_exceptions, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=(stream or sys.stderr).isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if settings.log_level == "debug" else logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _named(process_name: str) -> Processor:
    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process_name)
        return event

    return add_process


def _masked(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in MASKED.intersection(event):
        event[name] = "(hidden)"
    return event
