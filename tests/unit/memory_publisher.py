"""A publisher in memory: for tests of the ingress without Kafka."""

import asyncio
from collections.abc import Sequence

from ingress.batching import Record
from ingress.delivery import DeliveryCallback
from ingress.errors import Rejection, unavailable


class MemoryPublisher:
    """Keeps records in `records`; while `away` is set it rejects as the real one does."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away: str | None = None
        self.held_bytes = 0

    async def start(self) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Nothing to end."""

    def publish(self, records: Sequence[Record], callback: DeliveryCallback) -> None:
        """Keep the records, or raise `RequestError`."""
        if self.away is not None:
            raise unavailable(Rejection.KAFKA_AWAY, "events cannot be stored right now; retry")
        self.records += records
        asyncio.get_running_loop().call_soon(callback, None)

    async def unreachable(self) -> str | None:
        """Return what `away` says."""
        return self.away
