"""Stopping a consumer of aiokafka, also while its broker is away.

aiokafka's fetcher waits before it repeats a failed fetch. `stop` cancels and awaits that wait without expecting its
CancelledError, which then ends the caller's task as if somebody had cancelled it: silently, and before the error that
the consumer is stopped for is handled.
"""

import asyncio
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "aiokafka.consumer.fetcher:Fetcher": ("_fetch_task", "_pending_tasks"),
}

_close = Fetcher.close


def install() -> None:
    """Patch aiokafka in this process. Further calls change nothing."""
    Fetcher.close = _close_surely


async def _close_surely(fetcher: Any) -> None:
    """End the fetcher's tasks, whatever they wait for, before aiokafka closes it."""
    fetcher._fetch_task.cancel()
    await asyncio.wait([fetcher._fetch_task])  # first, as it begins the others
    for task in fetcher._pending_tasks:
        task.cancel()
    await asyncio.gather(*fetcher._pending_tasks, return_exceptions=True)
    fetcher._pending_tasks.clear()
    await _close(fetcher)
