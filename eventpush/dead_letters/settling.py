"""Find out what became of the letters that a replay sent.

The stream stage has passed the records once its group has committed beyond them. What it refused is on the dead-letter
topic by then; everything else is an event, new or accepted before, whose row the sink is about to write.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush import topic_reader
from eventpush.dead_letters import audit
from eventpush.dead_letters.audit import Outcome
from runtime.platform.settings import Settings
from schemas import topics
from schemas.tables import DEAD_LETTERS, EVENTS, Table

_PAUSE_S = 0.3
_IDS_AT_ONCE = 5_000
_CLOCKS_APART_MS = 600_000  # of ClickHouse and of this machine, at most


class _Refused(msgspec.Struct):
    dead_letter_id: str
    replay_of: str | None = None


_refused = msgspec.json.Decoder(_Refused).decode


def settled(sent: Sequence[Outcome], refused: Collection[str], stored: Collection[str]) -> list[Outcome]:
    """Return the outcomes that are known: the dead letter of the attempt, or else a row of the event. Pure."""
    found = []
    for letter in sent:
        if letter.refused_id in refused:
            found.append(msgspec.structs.replace(letter, outcome="dead_letter"))
        elif letter.event_id in stored:
            found.append(msgspec.structs.replace(letter, outcome="event"))
    return found


async def settle(settings: Settings, client: AsyncClient, run: audit.ReplayRun, wait_s: float) -> int:
    """Record outcomes until none is missing or the time is up; return how many are missing."""
    deadline_s = time.monotonic() + wait_s
    sent_until = await topic_reader.offsets(settings, topics.RAW)
    passed = False
    while waiting := await audit.waiting(client, run.replay_id):
        passed = passed or await _has_passed(settings, sent_until)
        if passed:
            refused = await _refused_since(settings, run.started_us)
            refused |= await _stored(client, DEAD_LETTERS, (letter.refused_id for letter in waiting))
            stored = await _stored(client, EVENTS, (letter.event_id for letter in waiting))
            await audit.record(client, run.replay_id, settled(waiting, refused, stored))
            waiting = await audit.waiting(client, run.replay_id)
        if not waiting or time.monotonic() > deadline_s:
            break
        await asyncio.sleep(_PAUSE_S)
    return len(waiting)


async def _has_passed(settings: Settings, raw: Mapping[int, tuple[int, int]]) -> bool:
    """Return whether the stream stage has committed all raw records; `raw` is each partition's begin and end."""
    done = await topic_reader.committed(settings, settings.streams_app_id, topics.RAW)
    return all(done.get(partition, begin) >= end for partition, (begin, end) in raw.items())


async def _refused_since(settings: Settings, since_us: int) -> set[str]:
    """Return the ids of the failed attempts that the dead-letter topic has from a time on."""
    begins = await topic_reader.offsets_at(settings, topics.DEAD_LETTER, since_us // 1000 - _CLOCKS_APART_MS)
    found = set()
    async with aclosing(topic_reader.records(settings, topics.DEAD_LETTER, begins)) as batches:
        async for _, records in batches:
            for letter in (_refused(record.value) for record in records):
                if letter.replay_of is not None:
                    found.add(letter.dead_letter_id)
    return found


async def _stored(client: AsyncClient, table: Table, ids: Iterable[str | None]) -> set[str]:
    """Return which of the ids have a row.

    A refusal may have one that is older than the replay: an attempt with the same payload is no new dead letter.
    """
    found: set[str] = set()
    wanted = [row_id for row_id in ids if row_id is not None]
    for at in range(0, len(wanted), _IDS_AT_ONCE):
        rows = await client.query(
            f"SELECT DISTINCT toString(stored.{table.identity}) FROM {table.store} AS stored"  # noqa: S608 - declared names
            f" WHERE stored.{table.identity} IN {{ids:Array(UUID)}}",
            parameters={"ids": wanted[at : at + _IDS_AT_ONCE]},
        )
        found.update(str(row_id) for (row_id,) in rows.result_rows)
    return found
