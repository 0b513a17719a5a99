"""Find an event's rows in ClickHouse: by receipt, by id, or by device and time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush.clickhouse_client import connected
from eventpush.tracing.facts import DeadLetterRow, EventRow, Position
from eventpush.tracing.wanted import Wanted
from runtime.platform.settings import Settings
from schemas import topics
from schemas.dead_letter import Violation

_ROWS_MAX = 1_000

_EVENTS = """
SELECT toString(event_id) AS event_id, event, imei, receipt_id, toUnixTimestamp64Micro(received_at) AS received_us,
    toUnixTimestamp64Micro(inserted_at) AS inserted_us, vehicle, fleet, driver,
    raw.partition AS raw_partition, raw.offset AS raw_offset
FROM telematics.events AS stored WHERE %s LIMIT {most:UInt32}
"""

# `stored.` in a condition means the column, not the text that is selected under its name.
# The sink's own dead letters hold their position on the events topic; the raw position is in the payload.
_DEAD_LETTERS = """
SELECT toString(dead_letter_id) AS dead_letter_id, stage, event, imei, receipt_id,
    toUnixTimestamp64Micro(received_at) AS received_us, toUnixTimestamp64Micro(inserted_at) AS inserted_us,
    toJSONString(reasons) AS reasons, toString(conflict_with_event_id) AS conflict_with_event_id,
    if(stage = 'sink', JSONExtractUInt(payload, 'raw', 'partition'), raw.partition) AS raw_partition,
    if(stage = 'sink', JSONExtractUInt(payload, 'raw', 'offset'), raw.offset) AS raw_offset
FROM telematics.dead_letters AS stored WHERE %s LIMIT {most:UInt32}
"""

_BY_RECEIPT = "(receipt_id = {receipt:String} OR startsWith(ifNull(receipt_id, ''), concat({receipt:String}, '.')))"
_BY_TIME = (
    "imei = {imei:String} AND %s BETWEEN fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
    " AND fromUnixTimestamp64Micro({until:Int64}, 'UTC')"
)

_reasons = msgspec.json.Decoder(list[Violation]).decode


@dataclass
class Rows:
    """Rows found, of both tables."""

    events: list[EventRow] = field(default_factory=list)
    dead_letters: list[DeadLetterRow] = field(default_factory=list)


async def find(settings: Settings, wanted: Wanted) -> Rows:
    """Return the rows that are asked for; raise `OperatorError` if ClickHouse is unavailable."""
    parameters: dict[str, Any] = {"receipt": wanted.receipt, "imei": wanted.imei, "id": wanted.id}
    parameters |= {"since": wanted.since_us, "until": wanted.until_us}
    if wanted.receipt:
        events, letters = [_BY_RECEIPT], [_BY_RECEIPT]
    elif wanted.id:
        events, letters = ["stored.event_id = {id:UUID}"], ["stored.dead_letter_id = {id:UUID}"]
    else:
        events, letters = [_BY_TIME % "received_at", _BY_TIME % "device_time"], [_BY_TIME % "received_at"]
    given = {name: value for name, value in parameters.items() if value is not None}
    async with connected(settings) as client:
        found = Rows()
        for condition in events:
            found.events += await _events(client, condition, given)
        for condition in letters:
            found.dead_letters += await _dead_letters(client, condition, given)
    return found


async def by_ids(settings: Settings, event_ids: Sequence[str], dead_letter_ids: Sequence[str]) -> Rows:
    """Return the rows with these ids."""
    async with connected(settings) as client:
        return Rows(
            await _events(client, "stored.event_id IN {ids:Array(UUID)}", {"ids": list(event_ids)})
            if event_ids
            else [],
            await _dead_letters(client, "stored.dead_letter_id IN {ids:Array(UUID)}", {"ids": list(dead_letter_ids)})
            if dead_letter_ids
            else [],
        )


async def _events(client: AsyncClient, condition: str, parameters: dict[str, Any]) -> list[EventRow]:
    found = await client.query(_EVENTS % condition, parameters=parameters | {"most": _ROWS_MAX})
    return [msgspec.convert(_positioned(row), EventRow) for row in found.named_results()]


async def _dead_letters(client: AsyncClient, condition: str, parameters: dict[str, Any]) -> list[DeadLetterRow]:
    found = await client.query(_DEAD_LETTERS % condition, parameters=parameters | {"most": _ROWS_MAX})
    rows = [_positioned(row) | {"reasons": _reasons(row["reasons"])} for row in found.named_results()]
    return [msgspec.convert(row, DeadLetterRow) for row in rows]


def _positioned(row: dict[str, Any]) -> dict[str, Any]:
    """Replace the two columns of the raw position by one value."""
    position = Position(topics.RAW, int(row["raw_partition"]), int(row["raw_offset"]))
    return {name: value for name, value in row.items() if not name.startswith("raw_")} | {"raw": position}
