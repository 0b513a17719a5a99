"""The rest of the fault matrix: `pytest -m soak tests/faults`."""

import asyncio
import random
import signal

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from runtime.kafka.topic_admin import admin, configuration
from schemas import topics
from tests.faults.conftest import exactly_once, pulse_of
from tests.faults.faults import at, kill_everything
from tests.faults.load import Load
from tests.faults.memory import peaks_of
from tests.faults.pipeline import Pipeline
from tests.faults.points import POINTS
from tests.faults.processes import until

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("point", [point for point in POINTS if "answer" not in point])
async def test_killed_at(pipeline: Pipeline, point: str):
    """Kill -9 between two lines of the code: nothing is lost, nothing doubled, and no watchdog has to end anybody."""
    ended = _ended_by_watchdogs(pipeline)

    async def harm():
        assert await at(point)(pipeline, random.Random(1))

    await exactly_once(pipeline, harm)
    assert _ended_by_watchdogs(pipeline) == ended


def _ended_by_watchdogs(pipeline: Pipeline) -> int:
    return sum(process.log.read_text().count("StalledError(") for process in (*pipeline.streams, pipeline.sink))


async def test_ten_rebalances_in_a_row(pipeline: Pipeline):
    """Ten times a worker comes or goes under load; no stall is longer than 10 s."""

    async def harm():
        async with pulse_of(pipeline) as pulse:  # while there is load: without it nothing comes either
            for _ in range(5):
                await pipeline.add_worker()
                await pipeline.ready()
                await pipeline.remove_worker()
                await pipeline.ready()
        assert pulse.longest_s < 10

    await exactly_once(pipeline, harm)


async def test_everything_killed_at_once(pipeline: Pipeline):
    """Kill -9 of brokers, ClickHouse and all stages together, and a start on what is on the disk."""
    await exactly_once(pipeline, lambda: kill_everything(pipeline, random.Random(1)))


async def test_clickhouse_away_for_minutes(pipeline: Pipeline):
    """150 s without ClickHouse under load: the topics go on without a stall, no stage takes more than its bound of
    memory for the backlog; then the backlog is stored.
    """

    async def harm():
        async with pulse_of(pipeline) as pulse:
            await pipeline.clickhouse.stop(signal.SIGKILL)
            await asyncio.sleep(150)
            pipeline.clickhouse.start()
            await pipeline.ready()
        print(f"longest stall: {pulse.longest_s:.1f} s")  # noqa: T201 - a measure
        assert pulse.longest_s < 10

    async with peaks_of(pipeline) as peaks:
        await exactly_once(pipeline, harm)
    print(f"peaks of memory: {peaks}")  # noqa: T201 - a measure
    assert not peaks.beyond


async def test_clickhouse_killed_again_and_again_in_the_middle_of_inserts(pipeline: Pipeline):
    """Kill -9 of ClickHouse at thirty random moments, while inserts for six months (so of as many parts each) are made
    without pause: whatever ClickHouse remembers of an insert, its rows are there once.
    """
    rng = random.Random(4)

    async def harm():
        for _ in range(30):
            await until(pipeline.clickhouse_answers, 60, "ClickHouse answers")
            await asyncio.sleep(rng.uniform(0.2, 1.5))
            pipeline.clickhouse.send_signal(signal.SIGKILL)

    await exactly_once(pipeline, harm, months=6)


async def test_everything_stopped_while_clickhouse_is_away(pipeline: Pipeline):
    """SIGTERM of all stages while ClickHouse is away: each ends within its bound; nothing is lost."""

    async def harm():
        await pipeline.clickhouse.stop(signal.SIGKILL)
        await asyncio.sleep(3)
        stages = (pipeline.ingress, *pipeline.streams, pipeline.sink)
        assert await asyncio.gather(*(process.stop() for process in stages)) == [0] * len(stages)
        await pipeline.again()

    await exactly_once(pipeline, harm)


async def test_dead_letter_topic_not_writable(pipeline: Pipeline):
    """While a batch with a dead letter cannot be written, its offset waits and no event of it is seen; then all is."""

    async def harm():
        await _limit_dead_letters(pipeline, 1)
        lives = sum(len(worker.statuses) for worker in pipeline.streams)

        async def is_refused() -> bool:
            return sum(len(worker.statuses) for worker in pipeline.streams) > lives

        await until(is_refused, 60, "a worker that cannot write its dead letter ends")
        await _limit_dead_letters(pipeline, None)

    await exactly_once(pipeline, harm)


async def _limit_dead_letters(pipeline: Pipeline, record_bytes: int | None) -> None:
    config = configuration(topics.DEAD_LETTER_TOPIC, pipeline.settings)
    if record_bytes is not None:
        config["max.message.bytes"] = str(record_bytes)
    async with admin(pipeline.settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics.DEAD_LETTER, config)])


async def test_poison_row(pipeline: Pipeline):
    """A record that can be no row, among good ones: it alone is dead-lettered, its neighbours are stored."""
    poison = "poison: no event at all"
    pipeline.poison.add(poison)

    async def harm():
        producer = AIOKafkaProducer(bootstrap_servers=pipeline.bootstrap)
        await producer.start()
        await producer.send_and_wait(topics.EVENTS, poison.encode(), partition=0)
        await producer.stop()

    await exactly_once(pipeline, harm)
    await pipeline.reader.read()
    letters = [s for s in pipeline.reader.seen if s.topic == topics.DEAD_LETTER and poison in s.value]
    assert len(letters) == 1
    assert '"refused_by_clickhouse"' in letters[0].value


async def test_a_client_that_hangs_up(pipeline: Pipeline):
    """Every third request is given up while its publish is under way: it is stored once or not, never half, and its
    repeat is no second event.
    """
    hurried = Load.HURRIED
    Load.HURRIED = 0.3
    try:
        await exactly_once(pipeline, lambda: asyncio.sleep(5))
    finally:
        Load.HURRIED = hurried
