"""Replay dead letters: select, repair, write to the raw topic, and record what becomes of each.

A page of letters is written to Kafka first and recorded then. Whoever continues after a kill may write that page again:
the stream stage drops what it has seen, so nothing is doubled, and nothing is left out.
"""

import getpass
import socket
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient

from eventpush.clickhouse_client import connected
from eventpush.dead_letters import audit, script, settling, store
from eventpush.dead_letters.audit import Counts, Outcome, ReplayRun
from eventpush.dead_letters.letter import Letter
from eventpush.dead_letters.preview import Preview, preview
from eventpush.dead_letters.raw_producer import RawProducer, RawRecord, raw_producer
from eventpush.dead_letters.repair import Function, Repair
from eventpush.dead_letters.selection import Selection
from runtime.platform.clock import clock_limits
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.identity import digest_of_attempt, uuid_text
from schemas.replay import Replay

Progress = Callable[[list[Preview]], None]


def this_operator() -> str:
    """Return user and host, for the audit."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


async def previews(
    settings: Settings, selection: Selection, repair: Repair, function: Function | None
) -> AsyncGenerator[list[Preview], None]:
    """Yield what a replay would do, in pages; nothing is sent or recorded."""
    clock = clock_limits(settings)
    async with connected(settings) as client:
        started_us = await audit.now_us(client)
        async with aclosing(store.pages(client, selection, str(uuid.uuid4()), started_us)) as pages:
            async for letters in pages:
                yield [preview(letter, repair, function, clock) for letter in letters]


async def start(settings: Settings, selection: Selection, repair: Repair, started_by: str) -> ReplayRun:
    """Record a new replay."""
    async with connected(settings) as client:
        run = ReplayRun(
            replay_id=str(uuid.uuid4()),
            started_us=await audit.now_us(client),
            started_by=started_by,
            selection=selection,
            repair=repair,
        )
        await audit.write(client, run)
    return run


async def resume(settings: Settings, replay_id: str) -> ReplayRun:
    """Return a replay that was begun; raise `OperatorError` if there is none, or if its script has changed."""
    async with connected(settings) as client:
        run = await audit.read(client, replay_id)
    if run.repair.script is not None and script.load(run.repair.script)[1] != run.repair.script_sha256:
        raise OperatorError(
            f"{run.repair.script} is not what it was when replay {replay_id} began",
            "restore the file to continue, or start another replay",
        )
    return run


async def proceed(settings: Settings, run: ReplayRun, wait_s: float, on_page: Progress) -> Counts:
    """Send what the replay has not recorded yet, and wait until every outcome is known, or for `wait_s` seconds."""
    function = None if run.repair.script is None else script.load(run.repair.script)[0]
    clock = clock_limits(settings)
    async with connected(settings) as client:
        async with (
            raw_producer(settings) as producer,
            aclosing(store.pages(client, run.selection, run.replay_id, run.started_us)) as pages,
        ):
            async for letters in pages:
                page = [preview(letter, run.repair, function, clock) for letter in letters]
                await _send(producer, client, run.replay_id, page)
                on_page(page)
        if not await settling.settle(settings, client, run, wait_s) and run.finished_us is None:
            await audit.write(client, msgspec.structs.replace(run, finished_us=await audit.now_us(client)))
        return await audit.counts(client, run.replay_id)


async def _send(producer: RawProducer, client: AsyncClient, replay_id: str, page: list[Preview]) -> None:
    await producer.send(raw_record(found.letter, found.after, replay_id) for found in page if found.after is not None)
    await audit.record(client, replay_id, [_outcome(found) for found in page])


def raw_record(letter: Letter, payload: bytes, replay_id: str) -> RawRecord:
    """Return the raw record that sends a letter again: first arrival, receipt and sender, and which replay it is."""
    replay = Replay(replay_id, letter.dead_letter_id, letter.attempt + 1)
    return RawRecord(payload, letter.received_us, letter.receipt_id, letter.sender, replay.headers())


def _outcome(found: Preview) -> Outcome:
    letter, attempt = found.letter, found.letter.attempt + 1
    if found.left_out is not None:
        return Outcome(dead_letter_id=letter.dead_letter_id, attempt=attempt, outcome="left_out", detail=found.left_out)
    event_id = found.checked.event_id if found.checked else None
    refused_id = uuid_text(digest_of_attempt(found.after or b"", letter.dead_letter_id, attempt))
    return Outcome(dead_letter_id=letter.dead_letter_id, attempt=attempt, event_id=event_id, refused_id=refused_id)
