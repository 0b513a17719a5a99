"""Write devices to the registry's topic, telematics.devices.v1: compacted and keyed by IMEI, the last load wins."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from itertools import islice

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eventpush.device_csv import DeviceRow
from eventpush.topic_reader import records, require_topic
from runtime.kafka.connection import connection
from runtime.kafka.topic_admin import unreachable
from runtime.platform.settings import Settings
from schemas.topics import DEVICES

_CHUNK = 5_000  # devices awaiting acknowledgement at once


async def load(
    settings: Settings,
    devices: Iterable[DeviceRow],
    *,
    replace: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Write the devices, acknowledged by all replicas; return how many were loaded and how many removed.

    With `replace`, also remove every registered device that is not among `devices`. `on_progress` receives the number
    written so far. Raise `OperatorError` if Kafka is unavailable.
    """
    obsolete = await registered(settings) if replace else set()
    await require_topic(settings, DEVICES)
    try:
        async with AIOKafkaProducer(**connection(settings), acks="all", enable_idempotence=True) as producer:
            loaded, removed = 0, 0
            for chunk in _chunks(devices):
                await _write(producer, chunk)
                obsolete -= {device.imei for device in chunk}
                loaded += sum(device.entry is not None for device in chunk)
                removed += sum(device.entry is None for device in chunk)
                on_progress(loaded + removed)
            await _write(producer, [DeviceRow(imei, None) for imei in sorted(obsolete)])
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from None
    return loaded, removed + len(obsolete)


async def registered(settings: Settings) -> set[str]:
    """Return the IMEIs in the registry."""
    found: set[str] = set()
    async with aclosing(records(settings, DEVICES)) as batches:
        async for _, batch in batches:
            for record in batch:
                (found.add if record.value else found.discard)(record.key.decode())
    return found


def _chunks(devices: Iterable[DeviceRow]) -> Iterator[list[DeviceRow]]:
    remaining = iter(devices)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


async def _write(producer: AIOKafkaProducer, devices: list[DeviceRow]) -> None:
    """Send the devices; return when all are acknowledged."""
    sent = [
        await producer.send(DEVICES, msgspec.json.encode(device.entry) if device.entry else None, device.imei.encode())
        for device in devices
    ]
    await asyncio.gather(*sent)
