"""How much memory the stages take while a test goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import psutil

from tests.faults.pipeline import Pipeline

_EVERY_S = 0.5

#: What docs/deploying.md, "Sizing", states for the settings' defaults and four partitions, in bytes.
_BOUNDS = {"ingress": (150 + 64) * 2**20, "streams": 550_000_000, "sink": 550_000_000}


class Peaks:
    """The most resident memory that was seen, in bytes, by stage."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}

    def look(self, pipeline: Pipeline) -> None:
        """Look once."""
        for process in (pipeline.ingress, *pipeline.streams, pipeline.sink):
            with contextlib.suppress(psutil.Error):
                if process.pid:
                    stage = process.name.split("-")[0]
                    now = psutil.Process(process.pid).memory_info().rss
                    self.bytes[stage] = max(now, self.bytes.get(stage, 0))

    @property
    def beyond(self) -> dict[str, int]:
        """The stages that took more than is stated."""
        return {stage: taken for stage, taken in self.bytes.items() if taken > _BOUNDS[stage]}

    def __str__(self) -> str:
        return ", ".join(f"{stage} {taken / 1e6:.0f} MB" for stage, taken in self.bytes.items())


@contextlib.asynccontextmanager
async def peaks_of(pipeline: Pipeline) -> AsyncIterator[Peaks]:
    """Looks twice a second meanwhile."""
    peaks = Peaks()

    async def watch() -> None:
        while True:
            peaks.look(pipeline)
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(watch())
    try:
        yield peaks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
