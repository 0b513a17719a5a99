"""The quick cut of the fault matrix: real processes under load, and every event accounted for afterwards."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from faust.types import TP

from runtime.adapters import aiokafka
from runtime.adapters.aiokafka_transactions import GroupMember
from runtime.kafka.record_format import records_of
from runtime.kafka.topic_admin import admin, create
from schemas import topics
from sinks import write_intent
from streams.transactions import Commit, Transactions
from tests.faults.conftest import exactly_once, without_faults
from tests.faults.faults import struck
from tests.faults.pipeline import Pipeline
from tests.faults.processes import until
from tests.faults.reader import rows

RECORD = records_of([(b"a test", b"", 0)])

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_new_topic_holds_up_no_transaction(pipeline: Pipeline):
    """The first record for a new topic, beside one for a topic in use: both are committed within the timeout."""
    old, *new = (f"test.{number}" for number in range(3))
    await _create(pipeline, old)
    aiokafka.install()
    group = "test-new-topic"
    transactions = Transactions(pipeline.settings.model_copy(update={"streams_app_id": group}), lambda: 1)
    source, member = TopicPartition(old, 0), GroupMember.made(group, -1, "")
    await transactions.start()
    try:
        await transactions.commit(Commit(source, {old: RECORD}, 1, member))
        for topic in new:
            await _create(pipeline, topic)
            await transactions.commit(Commit(source, {old: RECORD, topic: RECORD}, 2, member))
    finally:
        await transactions.stop()


async def _create(pipeline: Pipeline, topic: str) -> None:
    async with admin(pipeline.settings) as client:
        await create(client, pipeline.settings, [topics.type_topic(topic)])


async def test_all_stream_workers_killed(pipeline: Pipeline):
    """Kill -9 of every stream worker at once: the next ones go on at the last commit; nothing is lost or doubled."""

    async def harm():
        for worker in pipeline.streams:
            assert worker.send_signal(signal.SIGKILL)

    await exactly_once(pipeline, harm)


async def test_stream_worker_killed_between_changelog_and_commit(pipeline: Pipeline):
    """Kill -9 with everything of a transaction written but its commit: it aborts, and its events are repeated."""

    async def harm():
        assert await struck(pipeline.streams[0], "streams between changelog and commit")

    await exactly_once(pipeline, harm)


async def test_worker_stopped_past_its_session_is_fenced(pipeline: Pipeline):
    """SIGSTOP with a transaction open, past the session timeout, then SIGCONT: others took over, its commit is refused,
    it exits with status 1 and is replaced.
    """
    worker = pipeline.streams[0]

    async def harm():
        assert await struck(worker, "streams between changelog and commit", "stop")
        frozen, lives = worker.pid, len(worker.statuses)
        await asyncio.sleep(pipeline.settings.session_timeout_s + 6)
        assert worker.pid == frozen
        worker.send_signal(signal.SIGCONT)

        async def is_replaced() -> bool:
            return len(worker.statuses) > lives

        await until(is_replaced, 40, "the fenced worker has ended")
        assert worker.statuses[-1] == 1

    await exactly_once(pipeline, harm)


async def test_sink_killed_between_insert_and_commit(pipeline: Pipeline):
    """Kill -9 of the sink when ClickHouse has the batch and Kafka does not: the same insert changes nothing."""

    async def harm():
        assert await struck(pipeline.sink, "sink between insert and commit")

    await exactly_once(pipeline, harm)


async def test_clickhouse_remembers_an_insert_whose_rows_it_lost(pipeline: Pipeline):
    """Kill -9 of ClickHouse between its note of an insert's token and the insert's part leaves the note without the
    rows, and the same insert is answered with 200. Here the part is removed by hand; its rows must be there in the end.
    """

    async def harm():
        # A merge, or a sink that has started again, would take the part away before it is found.
        for table, _ in _STORES.values():
            await rows(pipeline.settings, f"SYSTEM STOP MERGES telematics.{table}")
        assert await struck(pipeline.sink, "sink between insert and commit", "stop")
        parts = await _parts_of_an_unfinished_insert(pipeline)
        await pipeline.sink.stop(signal.SIGKILL)
        await pipeline.clickhouse.stop(signal.SIGKILL)
        for part in parts:
            shutil.rmtree(part)
        pipeline.clickhouse.start()
        pipeline.sink.start()
        assert parts

    await exactly_once(pipeline, harm)


_STORES = {topics.EVENTS: ("events_store", "event_id"), topics.DEAD_LETTER: ("dead_letters_store", "dead_letter_id")}


async def _parts_of_an_unfinished_insert(pipeline: Pipeline) -> list[Path]:
    """The directories that hold the rows of an intent that was inserted and not committed, and nothing else."""
    async with admin(pipeline.settings) as client:
        committed = await client.list_consumer_group_offsets(pipeline.settings.sink_app_id)
    await pipeline.reader.read()
    for tp, at in committed.items():
        intent = write_intent.found(TP(*tp), at.offset, at.metadata)
        if intent is None:
            continue
        planned = [
            seen
            for seen in pipeline.reader.seen
            for part in intent.parts
            if seen[:2] == (tp.topic, part.partition) and part.first <= seen.offset < part.end
        ]
        table, column = _STORES[tp.topic]
        ids = ", ".join(f"'{json.loads(record.value)[column]}'" for record in planned)
        found = await rows(
            pipeline.settings,
            f"SELECT p.path AS path, p.rows AS all, count() AS planned FROM telematics.{table} AS e "
            "JOIN system.parts AS p ON e._part = p.name "
            f"WHERE p.active AND p.table = '{table}' AND e.{column} IN ({ids}) GROUP BY path, all",
        )
        if found and all(part["planned"] == part["all"] for part in found):
            return [Path(str(part["path"])) for part in found]
    return []


async def test_an_inserts_answer_is_lost(pipeline: Pipeline):
    """The answer to an insert gets lost: the same rows with the same token change nothing."""

    async def harm():
        assert await struck(pipeline.sink, "sink when an insert's answer comes", "lose")

    await exactly_once(pipeline, harm)


async def test_clickhouse_killed_and_away(pipeline: Pipeline):
    """Kill -9 of ClickHouse under inserts, away for a while, back: the sink waits and goes on with the same inserts."""

    async def harm():
        await pipeline.clickhouse.stop(signal.SIGKILL)
        await asyncio.sleep(5)
        pipeline.clickhouse.start()

    await exactly_once(pipeline, harm)


async def test_ingress_killed_before_and_after_the_ack(pipeline: Pipeline):
    """Kill -9 of the ingress before the broker has the events, and when it has them and the sender no 200 yet."""

    async def harm():
        assert await struck(pipeline.ingress, "ingress before the broker has it")
        await pipeline.ready()
        assert await struck(pipeline.ingress, "ingress after the broker's ack")

    await exactly_once(pipeline, harm)


async def test_broker_killed(pipeline: Pipeline):
    """Kill -9 of the broker: no 200 meanwhile; after its restart everything goes on."""

    async def harm():
        assert pipeline.kafka[0].send_signal(signal.SIGKILL)

    await exactly_once(pipeline, harm, after_s=5)


async def test_workers_come_and_go(pipeline: Pipeline):
    """Stream workers are added and removed under load: each rebalance leaves every event processed once."""

    async def harm():
        for _ in range(2):
            await pipeline.add_worker()
            await pipeline.ready()
            await pipeline.remove_worker()
            await pipeline.ready()

    await exactly_once(pipeline, harm)


async def test_everything_stopped_under_load(pipeline: Pipeline):
    """SIGTERM of all stages under load: each ends by itself within its bound, with status 0; nothing is lost."""

    async def harm():
        stages = (pipeline.ingress, *pipeline.streams, pipeline.sink)
        statuses = await asyncio.gather(*(process.stop() for process in stages))
        assert statuses == [0] * len(stages)
        await pipeline.again()

    await exactly_once(pipeline, harm)


async def test_an_offset_that_went_back_is_not_followed(pipeline: Pipeline):
    """The group's offsets are set back to the beginning while no worker runs: no raw record is processed twice."""

    async def harm():
        statuses = await asyncio.gather(*(worker.stop() for worker in pipeline.streams))
        assert statuses == [0] * len(pipeline.streams)
        settings = pipeline.settings
        partitions = [TopicPartition(topics.RAW, number) for number in range(settings.topic_partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=pipeline.bootstrap, group_id=settings.streams_app_id, enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign(partitions)

            async def set_back() -> bool:
                # The broker takes it once the group is empty, which a worker whose leaving got lost delays.
                with contextlib.suppress(CommitFailedError):
                    await consumer.commit(dict.fromkeys(partitions, 0))
                    return True
                return False

            await until(set_back, 30, "the group's offsets set back")
        finally:
            await consumer.stop()
        await pipeline.again()

    await exactly_once(pipeline, harm)


async def test_the_account_adds_up(pipeline: Pipeline):
    """After all of these faults `eventpush account --json`, which knows only Kafka and ClickHouse, counts what the
    reader saw; in each minute of arrival and for each type accepted = stored + duplicate + dead-lettered.
    """
    await without_faults(pipeline)
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "eventpush", "account", "--json",
        env=os.environ | pipeline.environ, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    summary = json.loads((await command.communicate())[0])
    assert (command.returncode, summary["discrepancies"], summary["in_flight"]) == (0, [], {"streams": 0, "sink": 0})
    seen = Counter(record.topic for record in pipeline.reader.seen)
    total = summary["total"]
    assert (summary["accepted"], total["unique"]) == (seen[topics.RAW], seen[topics.EVENTS])
    assert total["dead_lettered"] == seen[topics.DEAD_LETTER]
    for line in summary["lines"]:
        assert line["accepted"] == line["stored"] + line["duplicate"] + line["stored_dead_letters"], line
    assert sum(line["accepted"] for line in summary["lines"]) == summary["accepted"]
