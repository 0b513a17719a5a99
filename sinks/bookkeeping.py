"""What one sink writes besides rows: up to when all is stored (`sinks.completeness`), and the account.

The sink that has partition 0 of the events does so for all partitions. After a rebalance, two may for a moment: what
they write does not contradict. Nothing else depends on it, so an error is only a reason to begin again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from runtime.platform import metrics
from runtime.platform.backoff import Backoff
from runtime.platform.settings import Settings
from schemas.tables import DATABASE
from sinks.account_rows import AccountRows
from sinks.clickhouse_connection import UNAVAILABLE, ClickHouseServers
from sinks.completeness import GATES, Completeness, append_delay_us
from sinks.finished_offsets import FinishedOffsets

log = structlog.get_logger()

_STORE = f"{DATABASE}.completeness_store"
_INTERVAL_S = 1.0
_RETRY_FIRST_S, _RETRY_MAX_S = 1.0, 5.0


class Bookkeeper:
    """Keeps the books while `is_due` says so; several may, at once or in turn."""

    def __init__(self, settings: Settings, servers: ClickHouseServers, is_due: Callable[[], bool]) -> None:
        self._settings = settings
        self._servers = servers
        self._is_due = is_due

    async def run(self) -> None:
        """Run until cancelled."""
        backoff = Backoff(_RETRY_FIRST_S, _RETRY_MAX_S)
        while True:
            await asyncio.sleep(backoff.next_s())
            if not self._is_due():
                backoff.reset()
                continue
            try:
                async with self._books() as (offsets, account):
                    completeness = await self._begin()
                    while self._is_due():
                        await self._round(offsets, completeness)
                        async with self._servers.client() as client:
                            await account.copy(client)
                        backoff.reset()
                        await asyncio.sleep(_INTERVAL_S)
            except (KafkaError, *UNAVAILABLE) as error:
                log.info("completeness and account stand still; retrying", error=repr(error)[:300])
            finally:
                metrics.COMPLETE_THROUGH.metric.clear()

    @asynccontextmanager
    async def _books(self) -> AsyncIterator[tuple[FinishedOffsets, AccountRows]]:
        account = AccountRows(self._settings)
        try:
            async with self._servers.client() as client:
                await account.start(client)
            async with FinishedOffsets.connected(self._settings, self._partitions) as offsets:
                yield offsets, account
        finally:
            await account.stop()

    @property
    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for topic in GATES for number in range(self._settings.topic_partitions)]

    async def _begin(self) -> Completeness:
        """Begin with what is stored: a partition that is not proven yet by this sink does not fall back to nothing."""
        async with self._servers.client() as client:
            stored = await client.query(
                f"SELECT partition, toUnixTimestamp64Micro(max(complete_through)) FROM {_STORE} GROUP BY partition"  # noqa: S608 - a constant
            )
        proven_us = {int(partition): int(through_us) for partition, through_us in stored.result_rows}
        completeness = Completeness(self._settings.topic_partitions, append_delay_us(self._settings), proven_us)
        if proven_us:
            self._show(completeness)
        return completeness

    async def _round(self, offsets: FinishedOffsets, completeness: Completeness) -> None:
        """Take what is finished, then the time, then the ends: proofs rely on this order."""
        finished = await offsets.finished(completeness.awaited)
        now_us = time.time_ns() // 1_000
        if completeness.advance(finished, now_us, await offsets.ends(self._partitions)) and completeness.is_whole:
            await self._store(completeness)
            self._show(completeness)

    @staticmethod
    def _show(completeness: Completeness) -> None:
        for partition, through_us in completeness.through_us.items():
            metrics.COMPLETE_THROUGH.metric.labels(str(partition)).set(through_us / 1_000_000)

    async def _store(self, completeness: Completeness) -> None:
        """Store all partitions in one insert; a clock that is ahead of ClickHouse's does not count."""
        rows = ", ".join(f"({partition}, {through_us})" for partition, through_us in completeness.through_us.items())
        async with self._servers.client() as client:
            await client.command(
                f"INSERT INTO {_STORE} (partition, complete_through) "  # noqa: S608 - numbers
                "SELECT proof.1, least(fromUnixTimestamp64Micro(toInt64(proof.2), 'UTC'), now64(6, 'UTC')) "
                f"FROM (SELECT arrayJoin([{rows}]) AS proof)"
            )
