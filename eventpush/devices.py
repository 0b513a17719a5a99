"""The registry of devices: a CSV file, read and judged line by line, and written to telematics.devices.v1.

Reading is pure: a file in, devices and bad lines out. Writing goes to the compacted topic keyed by IMEI, so the last
load of a device stands.
"""

import asyncio
import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eventpush.kafka import records, require_topic
from runtime.errors import Problem
from runtime.kafka import connection
from runtime.settings import Settings
from runtime.topics_admin import unreachable
from schemas.topics import DEVICES

COLUMNS = ("imei", "vehicle", "fleet", "driver")
DELETE = "delete"  # the optional column: "yes" removes the device
TEXT_MAX = 256  # characters of a name
_YES, _NO = frozenset({"1", "true", "yes"}), frozenset({"", "0", "false", "no"})
_CHUNK = 5_000


class Entry(msgspec.Struct, frozen=True):
    """What the registry says of a device: the value on the topic."""

    vehicle: str | None
    fleet: str | None
    driver: str | None


@dataclass(frozen=True)
class Device:
    """One line of the file; `entry` is None for a device to remove."""

    imei: str
    entry: Entry | None


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be loaded, and why."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


def read(file: TextIO) -> Iterator[Device | BadLine]:
    """Yield the file's devices and bad lines, in order, while reading; raise `Problem` if the header is wrong."""
    rows = csv.reader(file, strict=True)
    header = _header(rows)
    first_line_of: dict[str, int] = {}
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            yield BadLine(rows.line_num, f"cannot be read ({error})")
            if isinstance(error, UnicodeDecodeError):
                return  # the decoder has lost its place
            continue
        if row:
            yield _device(dict(zip(header, row, strict=False)), len(row), len(header), rows.line_num, first_line_of)


def _header(rows: Any) -> list[str]:
    expected = f"begin the file with the line {','.join(COLUMNS)} (a column {DELETE} may follow)"
    try:
        header = [name.strip().lower().removeprefix("\ufeff") for name in next(rows)]
    except StopIteration:
        raise Problem("the file is empty", expected) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise Problem(f"the file is no CSV in UTF-8 ({error})", expected) from None
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in (*COLUMNS, DELETE)]
    if missing or unknown or len(set(header)) < len(header):
        said = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown or header)}"
        raise Problem(f"the header {said}", expected)
    return header


def _device(
    fields: dict[str, str], width: int, wanted: int, line: int, first_line_of: dict[str, int]
) -> Device | BadLine:
    if width != wanted:
        return BadLine(line, f"{width} fields, the header has {wanted}")
    imei = fields["imei"].strip()
    if not (len(imei) == 15 and imei.isascii() and imei.isdigit()):
        return BadLine(line, f"imei {imei[:40]!r} is not 15 digits")
    if imei in first_line_of:
        return BadLine(line, f"imei {imei} was already in line {first_line_of[imei]}")
    first_line_of[imei] = line
    texts = {name: fields[name].strip() or None for name in COLUMNS[1:]}
    for name, text in texts.items():
        if text and (len(text) > TEXT_MAX or not text.isprintable()):
            return BadLine(line, f"{name} is longer than {TEXT_MAX} characters or holds control characters")
    deleted = fields.get(DELETE, "").strip().lower()
    if deleted not in _YES | _NO:
        return BadLine(line, f"{DELETE} is {deleted[:40]!r}, wanted yes or nothing")
    return Device(imei, None if deleted in _YES else Entry(**texts))


async def load(
    settings: Settings,
    devices: Iterable[Device],
    *,
    replace: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Write the devices, acknowledged by all replicas; return how many were loaded and how many removed.

    With `replace`, a device that is in the topic and not among `devices` is removed too. `on_progress` gets the number
    written so far. Raises `Problem` when Kafka cannot be used.
    """
    before = await registered(settings) if replace else set()
    await require_topic(settings, DEVICES)
    try:
        async with AIOKafkaProducer(**connection(settings), acks="all", enable_idempotence=True) as producer:
            loaded, removed = 0, 0
            for chunk in _chunks(devices):
                await _write(producer, chunk)
                before -= {device.imei for device in chunk}
                loaded += sum(device.entry is not None for device in chunk)
                removed += sum(device.entry is None for device in chunk)
                on_progress(loaded + removed)
            await _write(producer, [Device(imei, None) for imei in sorted(before)])
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from None
    return loaded, removed + len(before)


async def registered(settings: Settings) -> set[str]:
    """Return the IMEIs that are in the topic now."""
    found: set[str] = set()
    async with aclosing(records(settings, DEVICES)) as batches:
        async for _, batch in batches:
            for record in batch:
                (found.add if record.value else found.discard)(record.key.decode())
    return found


def _chunks(devices: Iterable[Device]) -> Iterator[list[Device]]:
    remaining = iter(devices)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


async def _write(producer: AIOKafkaProducer, devices: list[Device]) -> None:
    """Send the devices; return when all are acknowledged."""
    sent = [
        await producer.send(DEVICES, msgspec.json.encode(device.entry) if device.entry else None, device.imei.encode())
        for device in devices
    ]
    await asyncio.gather(*sent)
