"""What the world can see: every record of every topic with `read_committed`, every row of ClickHouse's tables."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from runtime.platform.settings import Settings
from tests.faults.history import Seen, Stored

_PREFIX = "telematics."
_BINARY = {"telematics.window.v1", "telematics.devices.v1"}

_EVENTS = """
SELECT event_id, event, changes, imei, toUnixTimestamp64Micro(device_time) AS device_time,
    toUnixTimestamp64Micro(server_time) AS server_time, latitude, longitude, location, geofence_name
FROM telematics.events_store
"""
_DEAD_LETTERS = "SELECT stage, payload, raw FROM telematics.dead_letters_store"


@contextlib.asynccontextmanager
async def consumer(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A `read_committed` consumer of no group."""
    client = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 * 2**20,
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


class Reader:
    """Reads every topic of the pipeline; `seen` grows with each `read`."""

    def __init__(self, bootstrap: str) -> None:
        self.seen: list[Seen] = []
        self._bootstrap = bootstrap
        self._positions: dict[TopicPartition, int] = {}

    async def read(self, timeout_s: float = 60.0) -> None:
        """Read on, to what is the end by now; what a read that fails had got is read again by the next one."""
        found: list[Seen] = []
        async with consumer(self._bootstrap) as client, asyncio.timeout(timeout_s):
            partitions = [tp for tp in await _partitions(self._bootstrap) if tp.topic not in _BINARY]
            client.assign(partitions)
            for tp in partitions:
                client.seek(tp, self._positions.get(tp, 0))
            waiting = await client.end_offsets(partitions)
            while waiting:
                for tp, records in (await client.getmany(timeout_ms=200)).items():
                    found += [Seen(tp.topic, tp.partition, r.offset, _text(r.value)) for r in records]
                waiting = {tp: end for tp, end in waiting.items() if await client.position(tp) < end}
            positions = {tp: await client.position(tp) for tp in partitions}
        self.seen += found
        self._positions = positions


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


async def _partitions(bootstrap: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics()
    finally:
        await admin.close()
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        if topic["topic"].startswith(_PREFIX)
        for partition in topic["partitions"]
    ]


async def rows(settings: Settings, query: str) -> list[dict[str, object]]:
    """The rows of a statement, as the user and with the password of the settings."""
    login = {
        "X-ClickHouse-User": settings.clickhouse_user,
        "X-ClickHouse-Key": settings.clickhouse_password.get_secret_value(),
    }
    params = {"default_format": "JSONEachRow", "output_format_json_quote_64bit_integers": "0"}
    async with (
        aiohttp.ClientSession(headers=login) as session,
        session.post(settings.clickhouse_url, data=query, params=params) as answer,
    ):
        text = await answer.read()
        if answer.status != 200:
            raise OSError(text.decode()[:300])
    return [orjson.loads(line) for line in text.splitlines()]


async def read_clickhouse(settings: Settings) -> list[Stored]:
    """Every row as it is stored: repeats that reading or merging would hide are there."""
    events = [Stored("events", row) for row in await rows(settings, _EVENTS)]
    return events + [Stored("dead_letters", row) for row in await rows(settings, _DEAD_LETTERS)]


async def stored(settings: Settings) -> Counter[str]:
    """How many rows each view shows."""
    found = await rows(
        settings,
        "SELECT 'events' AS name, count() AS n FROM telematics.events "
        "UNION ALL SELECT 'dead_letters', count() FROM telematics.dead_letters",
    )
    return Counter({str(row["name"]): int(str(row["n"])) for row in found})


class Stall(NamedTuple):
    """A time in which nothing new came; seconds of the monotonic clock."""

    began_s: float
    lasted_s: float


class Pulse:
    """Follows the events topic and measures the times in which nothing new came."""

    def __init__(self, bootstrap: str, topic: str = "telematics.events.v1") -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._last_s = time.monotonic()
        self._over: list[Stall] = []  # of more than a second

    @property
    def stalls(self) -> list[Stall]:
        """Those of more than a second, with one that is not over yet."""
        return [*self._over, Stall(self._last_s, time.monotonic() - self._last_s)]

    @property
    def longest_s(self) -> float:
        """The longest of them."""
        return max(stall.lasted_s for stall in self.stalls)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with consumer(self._bootstrap) as client:
            partitions = [p for p in await _partitions(self._bootstrap) if p.topic == self._topic]
            client.assign(partitions)
            await client.seek_to_end(*partitions)
            self._last_s = time.monotonic()
            while True:
                with contextlib.suppress(KafkaError):
                    if await client.getmany(timeout_ms=100):
                        self._beat(time.monotonic())

    def _beat(self, now_s: float) -> None:
        if now_s - self._last_s > 1:
            self._over.append(Stall(self._last_s, now_s - self._last_s))
        self._last_s = now_s
