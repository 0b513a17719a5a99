"""The sink as a process of its own, which can be told at which point of which batch to kill itself.

    python -m tests.integration.sink_process [POINT]

The settings come from the environment, as for every process; without a POINT it is the sink as users run it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from runtime import logging, settings
from sinks import app
from sinks.dead_letters import DeadLetters
from sinks.ledger import Ledger
from sinks.store import Store

#: Point → the method, whether the kill comes before or after it, and which of its calls are meant.
POINTS: dict[str, tuple[type, str, str, Callable[..., bool]]] = {
    "before the plan": (Ledger, "commit", "before", lambda _self, _offset, metadata="": bool(metadata)),
    "between plan and insert": (Ledger, "commit", "after", lambda _self, _offset, metadata="": bool(metadata)),
    "between insert and commit": (Ledger, "commit", "before", lambda _self, _offset, metadata="": not metadata),
    "right after the commit": (Ledger, "commit", "after", lambda _self, _offset, metadata="": not metadata),
    "before the dead letters": (DeadLetters, "publish", "before", lambda *_: True),
    "right after the dead letters": (DeadLetters, "publish", "after", lambda *_: True),
    "during the insert": (Store, "_insert", "beside", lambda *_: True),
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
