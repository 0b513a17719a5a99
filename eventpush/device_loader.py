"""Write devices to the registry's topic, telematics.devices.v1: compacted and keyed by IMEI, a record is the history.

A load reads the registry first, since it puts its rows into the histories that are there. Its records are one
transaction: all of them, or none. A second load that begins meanwhile fences the first, which changes nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced

from eventpush.device_csv import DeviceRow
from eventpush.device_history import Row, loaded
from eventpush.topic_reader import records, require_topic
from runtime.kafka.connection import connection
from runtime.kafka.topic_admin import unreachable
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.device import INTERVALS_MAX, Device, Interval
from schemas.topics import DEVICES

TRANSACTIONAL_ID = "eventpush-devices-load"
_CHUNK = 5_000  # devices awaiting acknowledgement at once
_RECORD_MAX_BYTES = 4 * 1024 * 1024  # a device with INTERVALS_MAX of the longest names
_TRANSACTION_MAX_MS = 600_000
_TIMEOUT_MS = 60_000

_decode = msgspec.json.Decoder(Device).decode

#: IMEI → its new record; None removes the key.
Changes = Mapping[str, Device | None]


@dataclass(frozen=True)
class Loaded:
    """What a load did: devices in the file, how many of them changed nothing, and devices removed."""

    loaded: int
    unchanged: int
    removed: int


async def load(
    settings: Settings,
    rows: Iterable[DeviceRow],
    now: str,
    *,
    replace: bool = False,
    on_progress: Callable[[int, int], None] = lambda _written, _total: None,
) -> Loaded:
    """Put the rows into the registry as of `now` (RFC 3339 in UTC with microseconds), acknowledged by all replicas.

    With `replace`, also remove every registered device that no row names. `on_progress` receives how many changes were
    written, and of how many. Raise `OperatorError` if Kafka is unavailable, or if another load began meanwhile.
    """
    await require_topic(settings, DEVICES)
    try:
        async with AIOKafkaProducer(
            **connection(settings),
            transactional_id=TRANSACTIONAL_ID,
            transaction_timeout_ms=_TRANSACTION_MAX_MS,
            max_request_size=_RECORD_MAX_BYTES,
            acks="all",
        ) as producer:
            devices = await registry(settings)
            changes, result = _plan(devices, rows, now, replace=replace)
            if changes:
                async with producer.transaction():
                    await _write(producer, changes, on_progress)
    except ProducerFenced:
        raise OperatorError("another `devices load` began meanwhile: nothing was loaded", "run it again") from None
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from None
    return result


async def registry(settings: Settings) -> dict[str, Device]:
    """Return the registry: IMEI → record."""
    found: dict[str, Device] = {}
    async with aclosing(records(settings, DEVICES)) as batches:
        async for _, batch in batches:
            for record in batch:
                if record.value is None:
                    found.pop(record.key.decode(), None)
                else:
                    found[record.key.decode()] = _decode(record.value)
    return found


def _plan(
    devices: Mapping[str, Device], rows: Iterable[DeviceRow], now: str, *, replace: bool
) -> tuple[Changes, Loaded]:
    """Return the records that change, and what the load does."""
    rows_of: dict[str, list[Row]] = defaultdict(list)
    forgotten = set()
    for found in rows:
        if found.row is None:
            forgotten.add(found.imei)
        else:
            rows_of[found.imei].append(found.row)
    if replace:
        for imei in devices.keys() - rows_of.keys() - forgotten:
            rows_of[imei].append(Row(None))
    changes: dict[str, Device | None] = dict.fromkeys(sorted(forgotten))
    counts = {"loaded": 0, "unchanged": 0, "removed": len(forgotten)}
    for imei, device_rows in rows_of.items():
        before = devices.get(imei)
        after = loaded(before, device_rows, now)
        is_changed = _history(before) != _history(after)
        if is_changed:
            changes[imei] = _bounded(imei, after)
        if any(row.entry is not None for row in device_rows):
            counts["loaded"] += 1
            counts["unchanged"] += not is_changed
        else:
            counts["removed"] += is_changed
    return changes, Loaded(**counts)


def _history(device: Device | None) -> tuple[Interval, ...]:
    return device.history if device else ()


def _bounded(imei: str, device: Device | None) -> Device | None:
    if device is not None and len(device.history) > INTERVALS_MAX:
        raise OperatorError(
            f"imei {imei} would have {len(device.history)} intervals, {INTERVALS_MAX} at most: nothing was loaded",
            "load fewer changes of this device, or `forget` it and load what is still needed",
        )
    return device


async def _write(producer: AIOKafkaProducer, changes: Changes, on_progress: Callable[[int, int], None]) -> None:
    """Send the changes; return when all are acknowledged."""
    written = 0
    for chunk in _chunks(changes):
        sent = [
            await producer.send(
                DEVICES, None if changes[imei] is None else msgspec.json.encode(changes[imei]), imei.encode()
            )
            for imei in chunk
        ]
        await asyncio.gather(*sent)
        written += len(chunk)
        on_progress(written, len(changes))


def _chunks(imeis: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(imeis)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
