"""The sink as a process of its own, which kills itself at a given point of a given batch.

    python -m tests.integration.sink_process [POINT]

The settings come from the environment, as for every process; without a POINT it is the sink as users run it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from runtime.platform import logging, settings
from sinks import app
from sinks.clickhouse_writer import ClickHouseWriter
from sinks.dead_letters import DeadLetterPublisher
from sinks.offset_committer import OffsetCommitter

#: Point → the method, whether the kill comes before or after it, and which of its calls are meant.
POINTS: dict[str, tuple[type, str, str, Callable[..., bool]]] = {
    "before the intent": (OffsetCommitter, "commit", "before", lambda _self, _offset, metadata="": bool(metadata)),
    "between intent and insert": (
        OffsetCommitter,
        "commit",
        "after",
        lambda _self, _offset, metadata="": bool(metadata),
    ),
    "between insert and commit": (
        OffsetCommitter,
        "commit",
        "before",
        lambda _self, _offset, metadata="": not metadata,
    ),
    "right after the commit": (OffsetCommitter, "commit", "after", lambda _self, _offset, metadata="": not metadata),
    "before the dead letters": (DeadLetterPublisher, "publish", "before", lambda *_: True),
    "right after the dead letters": (DeadLetterPublisher, "publish", "after", lambda *_: True),
    "during the insert": (ClickHouseWriter, "_insert", "beside", lambda *_: True),
}


def die() -> None:
    """As if killed from outside: nothing is finished or closed."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Make the process kill itself at the point."""
    owner, name, when, meant = POINTS[point]
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def armed(*arguments: Any) -> Any:
        if not meant(*arguments):
            return await original(*arguments)
        if when == "before":
            die()
        if when == "beside":
            asyncio.get_running_loop().call_later(0.005, die)
        result = await original(*arguments)
        die()
        return result

    setattr(owner, name, armed)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        arm(wanted)
    loaded = settings.load()
    logging.setup(loaded, "sink")
    raise SystemExit(asyncio.run(app.run(loaded)))
