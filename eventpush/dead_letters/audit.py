"""The audit of replays in ClickHouse: `telematics.replays`, and what became of each letter in `telematics.replayed`."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush.dead_letters.repair import Repair
from eventpush.dead_letters.selection import Selection
from runtime.platform.errors import OperatorError

_MICROSECONDS = 1_000_000


class ReplayRun(msgspec.Struct, frozen=True, kw_only=True):
    """One replay as the audit has it; `started_us` is ClickHouse's clock, in µs since the epoch."""

    replay_id: str
    started_us: int
    finished_us: int | None = None
    started_by: str
    selection: Selection
    repair: Repair


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter; `outcome` is sent (not known yet), event, dead_letter or left_out."""

    dead_letter_id: str
    attempt: int
    event_id: str | None = None
    refused_id: str | None = None  # the dead letter that the attempt is, if it fails again
    outcome: str = "sent"
    detail: str = ""


class Counts(msgspec.Struct, frozen=True):
    """How many letters a replay selected, and what became of them."""

    selected: int = 0
    sent: int = 0
    events: int = 0
    dead_letters: int = 0
    left_out: int = 0
    waiting: int = 0


async def now_us(client: AsyncClient) -> int:
    """Return the time by ClickHouse's clock, in µs since the epoch."""
    return int((await client.query("SELECT toUnixTimestamp64Micro(now64(6))")).result_rows[0][0])


async def write(client: AsyncClient, run: ReplayRun) -> None:
    """Record a replay; a later record of the same replay replaces it."""
    row = [
        run.replay_id,
        _time(run.started_us),
        None if run.finished_us is None else _time(run.finished_us),
        run.started_by,
        msgspec.json.encode(run.selection).decode(),
        msgspec.json.encode(run.repair).decode(),
    ]
    columns = ["replay_id", "started_at", "finished_at", "started_by", "selection", "repair"]
    await client.insert("telematics.replays_store", [row], column_names=columns, settings=_always())


async def read(client: AsyncClient, replay_id: str) -> ReplayRun:
    """Return a replay; raise `OperatorError` if there is none with this id."""
    found = await client.query(
        "SELECT toUnixTimestamp64Micro(started_at), toUnixTimestamp64Micro(finished_at), started_by, selection, repair"
        " FROM telematics.replays WHERE replay_id = {id:UUID}",
        parameters={"id": replay_id},
    )
    for started_us, finished_us, started_by, selection, repair in found.result_rows:
        return ReplayRun(
            replay_id=replay_id,
            started_us=int(started_us),
            finished_us=None if finished_us is None else int(finished_us),
            started_by=str(started_by),
            selection=msgspec.json.decode(selection, type=Selection),
            repair=msgspec.json.decode(repair, type=Repair),
        )
    raise OperatorError(f"there is no replay {replay_id}", "see SELECT replay_id, started_at FROM telematics.replays")


async def record(client: AsyncClient, replay_id: str, outcomes: Sequence[Outcome]) -> None:
    """Record what became of letters; a later record of the same letter replaces it."""
    if outcomes:
        rows = [
            [replay_id, o.dead_letter_id, o.attempt, o.event_id, o.refused_id, o.outcome, o.detail] for o in outcomes
        ]
        columns = ["replay_id", "dead_letter_id", "attempt", "event_id", "refused_id", "outcome", "detail"]
        await client.insert("telematics.replayed_store", rows, column_names=columns, settings=_always())


async def waiting(client: AsyncClient, replay_id: str) -> list[Outcome]:
    """Return the letters that were sent and whose outcome is not known."""
    found = await client.query(
        "SELECT toString(dead_letter_id), attempt, toString(event_id), toString(refused_id) FROM telematics.replayed"
        " WHERE replay_id = {id:UUID} AND outcome = 'sent'",
        parameters={"id": replay_id},
    )
    return [
        Outcome(dead_letter_id=str(letter_id), attempt=int(attempt), event_id=event_id, refused_id=refused_id)
        for letter_id, attempt, event_id, refused_id in found.result_rows
    ]


async def counts(client: AsyncClient, replay_id: str) -> Counts:
    """Return the replay's counts."""
    found = await client.query(
        "SELECT selected, sent, events, dead_letters, left_out, waiting FROM telematics.replays"
        " WHERE replay_id = {id:UUID}",
        parameters={"id": replay_id},
    )
    return Counts(*map(int, found.result_rows[0]))


def _always() -> dict[str, str]:
    """Return settings with which an insert is not taken for a repeat of an earlier one of the same rows."""
    return {"insert_deduplication_token": str(uuid.uuid4())}


def _time(moment_us: int) -> datetime:
    seconds, us = divmod(moment_us, _MICROSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=us)
