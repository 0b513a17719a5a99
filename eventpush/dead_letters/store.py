"""Read dead letters from ClickHouse: groups with their counts, pages of a selection, one by its id."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush.dead_letters.letter import Letter, letter_of
from eventpush.dead_letters.selection import Selection

_PAGE_LETTERS = 200  # of at most 3 MiB each

#: What `dead-letters list` groups by, and its expression.
GROUPS = {
    "reason": "reason.code",
    "field": "reason.field",
    "sender": "ifNull(sender, '')",
    "event": "ifNull(event, '')",
    "day": "toString(toDate(received_at))",
    "hour": "formatDateTime(toStartOfHour(received_at), '%Y-%m-%dT%H:00Z', 'UTC')",
}
_OF_REASONS = {"reason", "field"}

# No name of a column is given to another expression: a condition would mean that.
_LETTERS = """
SELECT toString(dead_letter_id) AS letter, stage, event, imei, toUnixTimestamp64Micro(received_at) AS received_us,
    receipt_id, sender, payload, payload_encoding, toJSONString(reasons) AS reasons_json,
    toString(conflict_with_event_id) AS conflict, toString(replay_of) AS replayed_letter, attempt,
    raw.topic AS raw_topic, raw.partition AS raw_partition, raw.offset AS raw_offset,
    toString(resolved_by_event_id) AS resolved_by
FROM telematics.dead_letters WHERE %s
"""

_NOT_YET = """
 AND (toUnixTimestamp64Micro(received_at), raw.partition, raw.offset, dead_letter_id)
    > ({after_us:Int64}, {after_partition:UInt32}, {after_offset:UInt64}, {after_id:UUID})
 AND inserted_at <= fromUnixTimestamp64Micro({started:Int64}, 'UTC')
 AND dead_letter_id NOT IN (SELECT dead_letter_id FROM telematics.replayed_store WHERE replay_id = {replay_id:UUID})
 ORDER BY received_at, raw.partition, raw.offset, dead_letter_id LIMIT {most:UInt32}
"""


class Group(msgspec.Struct, frozen=True):
    """Open dead letters with the same values of what is grouped by."""

    by: dict[str, str]
    letters: int
    first_received: str
    last_received: str
    example: str  # a dead_letter_id


async def groups(client: AsyncClient, selection: Selection, by: Sequence[str], most: int) -> list[Group]:
    """Count the selected dead letters by the keys of `GROUPS`, the largest group first.

    A letter that breaks several rules counts in the group of each.
    """
    condition, parameters = selection.condition()
    keys = ", ".join(f"{GROUPS[name]} AS by_{name}" for name in by)
    rules = "ARRAY JOIN reasons AS reason" if _OF_REASONS & set(by) else ""
    found = await client.query(
        f"SELECT {keys}, uniqExact(dead_letter_id) AS letters, toString(min(received_at)), toString(max(received_at)),"  # noqa: S608 - constants
        f" toString(any(dead_letter_id)) FROM telematics.dead_letters {rules} WHERE {condition}"
        f" GROUP BY {', '.join(f'by_{name}' for name in by)} ORDER BY letters DESC LIMIT {most:d}",
        parameters=parameters,
    )
    return [
        Group({name: str(value) for name, value in zip(by, row, strict=False)}, int(row[-4]), *map(str, row[-3:]))
        for row in found.result_rows
    ]


async def count(client: AsyncClient, selection: Selection) -> int:
    """Count the selected dead letters, each once."""
    condition, parameters = selection.condition()
    found = await client.query(
        f"SELECT count() FROM telematics.dead_letters WHERE {condition}",  # noqa: S608 - constants and placeholders
        parameters=parameters,
    )
    return int(found.result_rows[0][0])


async def find(client: AsyncClient, letter_id: str) -> Letter | None:
    """Return the dead letter with this id; None if there is none."""
    found = await client.query(_LETTERS % "dead_letter_id = {id:UUID}", parameters={"id": letter_id})
    return next((letter_of(row) for row in found.named_results()), None)


async def pages(
    client: AsyncClient, selection: Selection, replay_id: str, started_us: int
) -> AsyncGenerator[list[Letter], None]:
    """Yield the selected letters that were stored before `started_us` and that the replay has not recorded yet.

    They come in order of arrival, a device's in the order of its records. `max_letters` bounds them, with those
    recorded before.
    """
    condition, parameters = selection.condition(started_us)
    parameters |= {"replay_id": replay_id, "started": started_us, **_AT_THE_BEGINNING}
    remaining = selection.max_letters
    if remaining is not None:
        remaining -= await _recorded(client, replay_id)
    while remaining is None or remaining > 0:
        most = _PAGE_LETTERS if remaining is None else min(_PAGE_LETTERS, remaining)
        found = await client.query(_LETTERS % condition + _NOT_YET, parameters=parameters | {"most": most})
        letters = [letter_of(row) for row in found.named_results()]
        if not letters:
            return
        yield letters
        parameters |= _after(letters[-1])
        remaining = None if remaining is None else remaining - len(letters)


_AT_THE_BEGINNING = {"after_us": -1, "after_partition": 0, "after_offset": 0, "after_id": str(UUID(int=0))}


def _after(letter: Letter) -> dict[str, Any]:
    return {
        "after_us": letter.received_us,
        "after_partition": letter.raw_partition,
        "after_offset": letter.raw_offset,
        "after_id": letter.dead_letter_id,
    }


async def _recorded(client: AsyncClient, replay_id: str) -> int:
    found = await client.query(
        "SELECT uniqExact(dead_letter_id) FROM telematics.replayed_store WHERE replay_id = {replay_id:UUID}",
        parameters={"replay_id": replay_id},
    )
    return int(found.result_rows[0][0])
