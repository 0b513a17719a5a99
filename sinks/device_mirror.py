"""Mirror the device registry into ClickHouse: a row of telematics.devices_store is a record of its topic.

Where to continue is asked of the rows themselves, and the record that is later on the topic counts, whatever is written
in between: so this may stop at any point, start again, and run in several workers at once.

Before a history changes, the days of the events that the change is about are marked, so that rollups by vehicle, fleet
and driver count them again (docs/decisions/0027-a-record-holds-the-devices-history.md).

A device whose key was deleted has no row: that is deleted too. Who is on the deny list of erasures gets none.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.kafka.connection import consumer_connection
from runtime.kafka.table_topic import partitions_of
from runtime.platform.backoff import Backoff
from runtime.platform.settings import Settings
from schemas import times
from schemas.device import Device, Interval
from schemas.erasure import Erased
from schemas.tables import DATABASE, EVENTS
from schemas.topics import DEVICES
from sinks.clickhouse_connection import UNAVAILABLE, ClickHouseServers

log = structlog.get_logger()

TABLE = f"{DATABASE}.devices_store"

_RECORDS_MAX = 5_000  # in one insert
_RETRY_MIN_S, _RETRY_MAX_S = 0.5, 10.0
_QUERY_BYTES_MAX = 16 * 2**20
_PHYSICALLY = {"mutations_sync": 2, "max_query_size": _QUERY_BYTES_MAX}
_READ_ISO = {"date_time_input_format": "best_effort"}
_WRITE_ISO = {"date_time_output_format": "iso", "max_query_size": _QUERY_BYTES_MAX}

_device = msgspec.json.Decoder(Device).decode
_encode = msgspec.json.Encoder().encode

#: Around every time in RFC 3339: bounds of periods that have none.
_BEGINNING, _END = "", "~"


class Row(msgspec.Struct):
    """A row of the table, in JSON."""

    imei: str
    intervals: tuple[Interval, ...]
    partition: int
    offset: int
    loaded_at: str


class _Stored(msgspec.Struct):
    imei: str
    intervals: tuple[Interval, ...]


_stored = msgspec.json.Decoder(_Stored).decode_lines


def row_of(record: Any, erased: Erased) -> Row | None:
    """Return the row of a record, without intervals for a null value; None, with a warning, if it is no device.

    Drivers who were erased are in no interval, and an erased device has none.
    """
    imei = (record.key or b"").decode("ascii", "replace")
    try:
        is_gone = record.value is None or erased.has_device(imei)
        intervals = () if is_gone else _device(record.value).without_drivers(erased.has_driver).history
        for time in (time for i in intervals for time in (i.valid_from, i.valid_to) if time is not None):
            times.parse(time)
    except (msgspec.MsgspecError, ValueError) as error:
        log.warning("registry entry ignored", imei=imei, error=str(error))
        return None
    return Row(imei, intervals, record.partition, record.offset, times.rfc3339(max(record.timestamp, 0) * 1000))


def changed_period(before: Sequence[Interval], after: Sequence[Interval]) -> tuple[str, str] | None:
    """Return beginning and end of what two histories say differently, or None if they say the same."""
    differing = {(i.valid_from or _BEGINNING, i.valid_to or _END) for i in set(before) ^ set(after)}
    return (min(begin for begin, _ in differing), max(end for _, end in differing)) if differing else None


class DeviceMirror:
    """The mirror of one worker."""

    def __init__(self, settings: Settings, servers: ClickHouseServers, erased: Erased, ready: asyncio.Event) -> None:
        self._settings = settings
        self._servers = servers
        self._erased = erased
        self._ready = ready

    async def follow(self) -> None:
        """Mirror the topic for ever; while Kafka or ClickHouse is away, retry."""
        await self._ready.wait()
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        while True:
            try:
                await self._follow(backoff)
            except (*UNAVAILABLE, KafkaError) as error:
                pause_s = backoff.next_s()
                log.warning("cannot mirror the device registry; retrying", error=str(error).splitlines()[:1],
                            in_s=round(pause_s, 2))  # fmt: skip
                await asyncio.sleep(pause_s)

    async def _follow(self, backoff: Backoff) -> None:
        consumer = AIOKafkaConsumer(
            **consumer_connection(self._settings),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
            max_poll_records=_RECORDS_MAX,
        )
        await consumer.start()
        try:
            await self._seek(consumer)
            while True:
                batches = await consumer.getmany(timeout_ms=1_000)
                found = (row_of(record, self._erased) for batch in batches.values() for record in batch)
                # Of several records of a device, the last one counts.
                if rows := list({row.imei: row for row in found if row is not None}.values()):
                    async with self._servers.client() as client:
                        await _mark(client, rows)
                        await _insert(client, rows)
                    log.info("device histories stored", devices=len(rows))
                    backoff.reset()
        finally:
            await consumer.stop()

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        """Continue behind the records that have rows."""
        tps = await partitions_of(consumer, DEVICES)
        consumer.assign(tps)
        async with self._servers.client() as client:
            found = await client.query(f"SELECT partition, max(offset) FROM {TABLE} GROUP BY partition")  # noqa: S608 - a constant
        stored = {int(partition): int(offset) for partition, offset in found.result_rows}
        ends = await consumer.end_offsets(tps)
        for tp in tps:
            consumer.seek(tp, stored.get(tp.partition, -1) + 1)
            if stored.get(tp.partition, -1) >= ends[tp]:
                log.warning(
                    f"{TABLE} is ahead of {DEVICES}, which was created again: truncate the table and restart the sink",
                    partition=tp.partition,
                )


def _listed(imeis: Iterable[str]) -> str:
    return ",".join(f"'{imei}'" for imei in imeis)


def _is_imei(key: str) -> bool:
    return key.isascii() and key.isdigit()


async def _mark(client: AsyncClient, rows: Sequence[Row]) -> None:
    """Mark the days of events about which the rows say something else than the table."""
    imeis = _listed(row.imei for row in rows if _is_imei(row.imei))
    if not imeis:
        return
    question = f"SELECT imei, intervals FROM {TABLE} FINAL WHERE imei IN ({imeis})"  # noqa: S608 - digits
    lines = await client.raw_query(question, fmt="JSONEachRow", settings=_WRITE_ISO)
    before = {found.imei: found.intervals for found in _stored(lines)}
    changed = {row.imei: period for row in rows if (period := changed_period(before.get(row.imei, ()), row.intervals))}
    if changed:
        begin, end = min(begin for begin, _ in changed.values()), max(end for _, end in changed.values())
        await client.command(_marks(changed, begin, end), settings={"max_query_size": _QUERY_BYTES_MAX})


def _marks(imeis: Iterable[str], begin: str, end: str) -> str:
    bounds = [("device_time >=", begin)] * (begin != _BEGINNING) + [("device_time <", end)] * (end != _END)
    conditions = "".join(f" AND {side} parseDateTime64BestEffort('{time}', 6, 'UTC')" for side, time in bounds)
    return (
        f"INSERT INTO {DATABASE}.rollup_marks (hour) SELECT DISTINCT toStartOfDay(device_time) "  # noqa: S608 - digits, checked times
        f"FROM {EVENTS.store} WHERE imei IN ({_listed(imeis)}){conditions}"
    )


async def _insert(client: AsyncClient, rows: Sequence[Row]) -> None:
    """Write the rows of devices with a history, and delete those of the others."""
    gone = [row.imei for row in rows if not row.intervals and _is_imei(row.imei)]
    if gone:
        where = f"imei IN ({_listed(gone)})"
        found = await client.query(f"SELECT count() FROM {TABLE} WHERE {where}")  # noqa: S608 - digits
        if found.result_rows[0][0]:
            await client.command(f"ALTER TABLE {TABLE} DELETE WHERE {where}", settings=_PHYSICALLY)
    rows = [row for row in rows if row.intervals]
    if not rows:
        return
    await client.raw_insert(TABLE, insert_block=b"\n".join(map(_encode, rows)), fmt="JSONEachRow", settings=_READ_ISO)
