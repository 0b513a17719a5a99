"""A publisher that keeps what it is given: for tests of the door without Kafka."""

import asyncio
from collections.abc import Sequence

from ingress.errors import Reason, unavailable
from ingress.publisher import Record, Settled


class MemoryPublisher:
    """Keeps records in `records`; while `away` is set it refuses as the real one does."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away: str | None = None
        self.held_bytes = 0

    async def start(self) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Nothing to end."""

    def publish(self, records: Sequence[Record], settled: Settled) -> None:
        """Keeps the records, or raises `RequestError`."""
        if self.away is not None:
            raise unavailable(Reason.KAFKA_AWAY, "events cannot be stored at the moment: send it again")
        self.records += records
        asyncio.get_running_loop().call_soon(settled, None)

    async def unreachable(self) -> str | None:
        """What `away` says."""
        return self.away
