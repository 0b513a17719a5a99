"""A simulated fleet's fortnight in ClickHouse: planned events through the stream stage's code into the sink's rows."""

import json
import re
import time
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from eventpush.simulation.fleet import Shares, generate
from schemas import times, topics
from schemas.account import BatchAccount
from schemas.device import Device, Interval
from schemas.tables import DEAD_LETTERS, EVENTS
from schemas.validation import ClockLimits
from sinks import account_rows, device_mirror
from sinks.device_mirror import Row
from sinks.row_encoder import DEAD_LETTER_ROWS, EVENT_ROWS
from streams.batch_processor import BatchProcessor, BatchResult, PartitionState, RawBatch
from streams.content import content_of, default_content_fields
from streams.enrichment import Source
from streams.latest_states import LatestStates
from streams.memory_segment import MemorySegment
from streams.window import DeduplicationWindow
from tests.integration.reporting import Reporting
from tests.unit.published_records import read

DEVICES, EVENTS_PLANNED, SEED = 40, 8_000, 7
#: The simulator's hour becomes a week and a half, so that reports have days and nights.
STRETCH = 240
_BEGIN_US = times.parse("2024-06-28T00:00:00.000000+0000")
_NEVER_SEEN = "350612070080005"
_TIMES = re.compile(rb'"Device_Time":"([^"]+)",(.*?)"Server_Time":"([^"]+)"')


def fill(reporting: Reporting) -> None:
    """Store the fleet's events and dead letters, their account, and how far they are complete."""
    result = processed()
    events = [record.value for record in read(result.events)]
    letters = [value for _, value, _ in result.dead_letters]
    for table, rows, values in ((EVENTS, EVENT_ROWS, events), (DEAD_LETTERS, DEAD_LETTER_ROWS, letters)):
        names = [column.name for column in table.columns]
        reporting.client.raw_insert(table.store, column_names=names, insert_block=rows.blocks(values), fmt="Native")
    imeis = sorted({str(json.loads(event)["imei"]) for event in events if event})
    registry = [Row(imei, history, 0, n, "2024-07-13T00:00:00.000000Z") for n, imei in enumerate([*imeis, _NEVER_SEEN])
                if (history := _history(imei))]  # fmt: skip
    iso = {"date_time_input_format": "best_effort"}
    body = b"\n".join(map(msgspec.json.encode, registry))
    reporting.client.raw_insert(device_mirror.TABLE, insert_block=body, fmt="JSONEachRow", settings=iso)
    now = times.rfc3339(time.time_ns() // 1_000)
    summary = BatchAccount(0, 0, EVENTS_PLANNED, now, result.counts)
    reporting.client.raw_insert(
        account_rows.STORE, insert_block=account_rows.as_row(summary, 0), **account_rows.AS_JSON
    )
    reporting.client.command(
        "INSERT INTO telematics.completeness_store (partition, complete_through) VALUES"
        " (0, '2024-07-11 06:00:00'), (1, '2024-07-11 06:00:03')"
    )


def processed() -> BatchResult:
    """What the stream stage makes of the planned events."""
    shares = Shares(conflicting=0.003, late=0.1, out_of_order=0.05, same_instant=0.05)
    bodies = [_stretched(event.body) for event in islice(generate(SEED, DEVICES, shares), EVENTS_PLANNED)]
    records = [_record(offset, body, arrival_us) for offset, (body, arrival_us) in enumerate(bodies)]
    devices = {imei: device for imei in {_imei(body) for body, _ in bodies} if (device := _device(imei))}
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    clock = ClockLimits.of_seconds(300, 86_400)
    processor = BatchProcessor(Source(topics.RAW, devices, clock.skew_us), clock, content_of(default_content_fields()))
    (result,) = processor.process([RawBatch(PartitionState(0, window, LatestStates()), records)])
    return result


def _stretched(body: bytes) -> tuple[bytes, int]:
    """The body with its times stretched, and its arrival a second after the platform had it."""
    found = _TIMES.search(body)
    try:
        device_us, server_us = (times.parse(text.decode()) for text in (found[1], found[3])) if found else (0, 0)
    except ValueError:
        device_us = 0
    if not device_us:
        return body, _BEGIN_US + len(body) * 1_000_000
    stretched = _BEGIN_US + (device_us - _BEGIN_US) * STRETCH
    server = stretched + server_us - device_us
    assert found is not None
    body = body.replace(found[1], times.as_sent(stretched).encode(), 1)
    return body.replace(
        b'"Server_Time":"' + found[3], b'"Server_Time":"' + times.as_sent(server).encode()
    ), server + 1_200_000


def _record(offset: int, body: bytes, arrival_us: int) -> Any:
    headers = {"arrival_us": arrival_us, "receipt_id": f"receipt-{offset}", "sender": "platform-a"}
    return cast("Any", SimpleNamespace(
        offset=offset, timestamp=arrival_us // 1_000, key=b"", value=body,
        headers=[(name, str(value).encode()) for name, value in headers.items()],
    ))  # fmt: skip


def _imei(body: bytes) -> str:
    try:
        return str(json.loads(body).get("IMEI"))
    except ValueError:
        return ""


def _history(imei: str) -> tuple[Interval, ...]:
    """What the registry knows now: some vehicles of the west had another driver until 4 July, as was heard later."""
    device = _device(imei)
    if device is None or device.fleet != "West" or int(imei[8:14]) % 4:
        return device.history if device else ()
    since = "2024-07-04T06:00:00.000000Z"
    before = Interval(device.vehicle, device.fleet, "Driver 90", valid_to=since)
    return before, Interval(device.vehicle, device.fleet, device.driver, since)


def _device(imei: str) -> Device | None:
    """What the registry has: one device in ten is unknown to it."""
    number = int(imei[8:14]) if re.fullmatch(r"\d{15}", imei) else 0
    if number % 10 == 9:
        return None
    return Device(f"MP09-HG-{number % 10_000:04d}", ("North", "South", "West")[number % 3], f"Driver {number % 17:02d}")
