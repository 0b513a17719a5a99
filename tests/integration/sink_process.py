"""The sink as a process of its own, which kills itself at a given point of a given batch.

    python -m tests.integration.sink_process [POINT]

The settings come from the environment, as for every process; without a POINT it is the sink as users run it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from runtime.consumer.offset_committer import Committed, OffsetCommitter
from runtime.platform import logging, settings
from sinks import app
from sinks.clickhouse_writer import ClickHouseWriter
from sinks.dead_letters import DeadLetterPublisher

#: Point → the method or function, whether the kill comes before or after it, and which of its calls are meant.
POINTS: dict[str, tuple[Any, str, str, Callable[..., bool]]] = {
    "before the intent": (app, "commit_together", "before", lambda _app, commits: _is_intent(commits)),
    "between intent and insert": (app, "commit_together", "after", lambda _app, commits: _is_intent(commits)),
    "between insert and commit": (app, "commit_together", "before", lambda _app, commits: not _is_intent(commits)),
    "right after the commit": (app, "commit_together", "after", lambda _app, commits: not _is_intent(commits)),
    "before the dead letters": (DeadLetterPublisher, "publish", "before", lambda *_: True),
    "right after the dead letters": (DeadLetterPublisher, "publish", "after", lambda *_: True),
    "during the insert": (ClickHouseWriter, "_insert", "beside", lambda *_: True),
}


def _is_intent(commits: Sequence[tuple[OffsetCommitter, Committed]]) -> bool:
    return any(wanted.metadata for _, wanted in commits)


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
