"""A stage leaves while the topics get more partitions: what it holds by partition is being moved."""

import asyncio

import structlog

from runtime.kafka.raw_gate import Gate, GrowingError
from runtime.kafka.topic_admin import admin, gate
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

log = structlog.get_logger()

_INTERVAL_S = 5.0


async def leave_when_growing(settings: Settings) -> None:
    """Watch the raw topic's gate; raise `OperatorError`, which ends the process, when the topics begin to grow."""
    while not await _grow(settings):  # noqa: ASYNC110 - no process tells this one
        await asyncio.sleep(_INTERVAL_S)
    raise GrowingError


async def _grow(settings: Settings) -> bool:
    """Return whether the topics grow, once they do or Kafka cannot be asked."""
    try:
        async with admin(settings) as client:
            while await gate(client) is not Gate.GROWING:  # noqa: ASYNC110 - of a broker
                await asyncio.sleep(_INTERVAL_S)
            return True
    except OperatorError as error:
        log.debug("cannot see whether the topics grow", error=str(error))
        return False
