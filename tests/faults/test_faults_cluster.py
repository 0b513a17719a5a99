"""Three brokers, replication factor 3, two must have a record: any one may go; with two gone nothing is accepted."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runtime.kafka.topic_admin import admin
from tests.faults.conftest import exactly_once
from tests.faults.faults import struck
from tests.faults.pipeline import Pipeline, running
from tests.faults.processes import Process

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    """The pipeline on three brokers."""
    async with running(tmp_path_factory.mktemp("three"), replicas=3) as pipeline:
        yield pipeline


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_any_of_three_brokers_killed(three: Pipeline, number: int):
    """Kill -9 of each broker in turn, so also of the controller."""

    async def harm():
        assert three.kafka[number].send_signal(signal.SIGKILL)
        await asyncio.sleep(5)

    await exactly_once(three, harm, after_s=5)


@pytest.mark.parametrize("of", ["the transactions", "the group"])
async def test_coordinator_killed_during_commit(three: Pipeline, of: str):
    """Kill -9 of the broker that coordinates a worker's transactions, and of the one that coordinates its group, while
    the worker stands between its last output and the commit; then it goes on.
    """
    worker = three.streams[0]
    group = three.settings.streams_app_id

    async def harm():
        assert await struck(worker, "streams between outputs and offsets", "stop")
        topic, key = (
            ("__transaction_state", _transactional_id(worker))
            if of == "the transactions"
            else ("__consumer_offsets", group)
        )
        coordinator = await _leader(three, topic, key)
        assert coordinator.send_signal(signal.SIGKILL)
        await asyncio.sleep(1)
        worker.send_signal(signal.SIGCONT)
        await asyncio.sleep(5)

    await exactly_once(three, harm, after_s=5)


def _transactional_id(worker: Process) -> str:
    """That of the producer whose fault was logged last."""
    return re.findall(r"^fault: .*\[(.+)\]$", worker.log.read_text(), re.MULTILINE)[-1]


async def _leader(three: Pipeline, topic: str, key: str) -> Process:
    """The broker that leads the partition of one of Kafka's own topics to which the key belongs."""
    async with admin(three.settings) as client:
        (described,) = await client.describe_topics([topic])
    partitions = {p["partition"]: p["leader"] for p in described["partitions"]}
    return three.kafka[partitions[_java_hash(key) % len(partitions)] - 1]  # nodes are numbered from 1


def _java_hash(text: str) -> int:
    """`Utils.abs(text.hashCode())` of Java, by which Kafka chooses a coordinator's partition."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return (value - 2**32 if value >= 2**31 else value) & 0x7FFFFFFF


async def test_below_min_isr_there_is_no_200(three: Pipeline):
    """Two of three brokers away: not one 200 until they are back; then everything goes on."""

    async def harm():
        away = three.kafka[1:]
        for broker in away:
            broker.send_signal(signal.SIGSTOP)
        gone_s = time.monotonic()
        await asyncio.sleep(15)
        early = [s for s in three.sent if s.status == 200 and s.sent_s > gone_s]
        for broker in away:
            broker.send_signal(signal.SIGCONT)
        assert not early

    await exactly_once(three, harm, after_s=5)
