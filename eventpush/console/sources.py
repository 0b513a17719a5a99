"""Everything that the pages show comes from here; each source is asked only while a page shows it."""

import asyncio
from typing import Any

import msgspec

from eventpush.console.clickhouse import ClickHouse
from eventpush.console.feed import EventFeed
from eventpush.console.flow import Stored
from eventpush.console.kafka_progress import KafkaProgress
from eventpush.console.outline import Outlines
from eventpush.console.own_commands import run_json
from eventpush.console.polled import Polled
from eventpush.console.progress import Progress
from eventpush.console.sender_counts import SenderCounts, sender_counts
from eventpush.console.stages import StageMonitor, StageReading
from runtime.platform.settings import Settings

_STORED = """
SELECT (SELECT count() FROM telematics.events_store) AS events,
    (SELECT count() FROM telematics.dead_letters_store) AS dead_letters,
    (SELECT toUnixTimestamp64Micro(min(complete_through)) FROM telematics.completeness) AS complete_through_us
"""
_ACCOUNT_INTERVAL_S = 60.0
_ACCOUNT_TIMEOUT_S = 600.0


class InFlight(msgspec.Struct):
    """Events on their way, by the stage that they wait for."""

    streams: int = 0
    sink: int = 0


class Totals(msgspec.Struct):
    """Processed events by outcome."""

    unique: int = 0
    duplicate: int = 0
    dead_lettered: int = 0


class Discrepancy(msgspec.Struct):
    """A range of raw offsets that does not reconcile."""

    partition: int
    first: int
    next: int
    events: int
    why: str


class Account(msgspec.Struct):
    """What `eventpush account --json` says."""

    accepted: int
    in_flight: InFlight
    total: Totals
    discrepancies: list[Discrepancy]


class Sources:
    """The sources of one console."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clickhouse = ClickHouse(settings)
        self.monitor = StageMonitor(settings)
        self.feed = EventFeed(settings)
        self.outlines = Outlines()
        self._progress = KafkaProgress(settings)
        self.stages: Polled[dict[str, StageReading]] = Polled(self.monitor.read, 1.0, 5.0)
        self.progress: Polled[Progress] = Polled(self._progress.read, 1.0, 10.0)
        self.stored: Polled[Stored] = Polled(self._stored, 2.0, 10.0)
        self.senders: Polled[list[SenderCounts]] = Polled(lambda: sender_counts(self.clickhouse), 5.0, 15.0)
        self.account: Polled[Account] = Polled(_account, _ACCOUNT_INTERVAL_S, _ACCOUNT_TIMEOUT_S)

    async def close(self) -> None:
        """Close all connections."""
        polled: list[Polled[Any]] = [self.stages, self.progress, self.stored, self.senders, self.account]
        await asyncio.gather(*(source.close() for source in polled))
        await self.feed.close()
        await asyncio.gather(self.clickhouse.close(), self.monitor.close(), self._progress.close())

    async def _stored(self) -> Stored:
        (row,) = await self.clickhouse.rows(_STORED)
        return Stored(int(row["events"]), int(row["dead_letters"]), int(row["complete_through_us"]))


async def _account() -> Account:
    return await run_json(Account, "account", "--json", timeout_s=_ACCOUNT_TIMEOUT_S)
