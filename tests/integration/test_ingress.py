"""The ingress on real Kafka: what is answered 200 is there, whatever happens to Kafka or to the ingress."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner

from schemas import topics
from tests.integration.ingress_support import Ingress, make_topics, numbers, raw_records, sending
from tests.stack import Kafka, bootstrap_of, kafka_cluster
from tests.unit.ingress_support import BODY, Running

SENDERS_PATIENCE_S = 2.0
READY_AGAIN_MAX_S = 5.0  # it tries to connect every second at least; measured 0.1 and 0.3 s


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    """A broker of this module's own: its tests stop it."""
    broker = Kafka.at(tmp_path_factory.mktemp("ingress-kafka"))
    broker.start()
    yield broker
    broker.end_if_running()


async def test_the_raw_record(kafka, tmp_path):
    """The sample event is in the topic: key, untouched bytes, headers, arrival as its time, Kafka's own partition."""
    await make_topics(kafka.bootstrap)
    with Ingress(kafka.bootstrap, tmp_path) as ingress:
        assert ingress.status("/readyz") == 200
        assert ingress.status("/metrics") == 404
        before_us = time.time_ns() // 1_000
        answer = await Running(ingress.port, None).post(traceparent="00-x-y-01")
        assert answer.status == 200
        [record] = [r for r in await raw_records(kafka.bootstrap) if r.value == BODY]
        headers = dict(record.headers)
        assert record.key == b"350612075195931"
        assert headers[topics.HEADER_RECEIPT_ID].decode() == answer.headers["x-receipt-id"]
        assert headers[topics.HEADER_TRACEPARENT] == b"00-x-y-01"
        arrival_us = int(headers[topics.HEADER_ARRIVAL_US])
        assert before_us <= arrival_us <= time.time_ns() // 1_000
        assert record.timestamp == arrival_us // 1_000
        assert record.partition == DefaultPartitioner()(record.key, [0, 1, 2, 3], [])
        assert "eventpush_ingress_events_total 1.0" in ingress.metrics()
        assert ingress.status("/readyz", ingress.metrics_port) == 200


async def test_kafka_is_killed_under_load_and_comes_back(kafka, tmp_path):
    """While Kafka is away: 503 within the sender's patience and flat memory. When it is back, /readyz says so within
    seconds, and from then on every request succeeds, without a restart; all that was ever answered 200 is there.
    """
    await make_topics(kafka.bootstrap)
    with Ingress(kafka.bootstrap, tmp_path) as ingress:
        async with sending(ingress.port, 32) as senders:
            await senders.more(500)
            await asyncio.to_thread(kafka.end, signal.SIGKILL)
            before = senders.statuses[503]
            await senders.until(lambda: senders.statuses[503] > before + 2_000)
            assert ingress.status("/readyz") == 503
            held = resident_kib(ingress.process.pid)
            await senders.until(lambda: senders.statuses[503] > before + 8_000)
            assert resident_kib(ingress.process.pid) < held + 10_000
        await asyncio.to_thread(kafka.start)
        await every_request_succeeds_once_ready(ingress)
        assert set(senders.statuses) == {200, 503}
        assert senders.slowest_s < SENDERS_PATIENCE_S
        assert senders.broken == 0
        assert ingress.process.poll() is None
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))


async def test_kafka_hangs(kafka, tmp_path):
    """A broker that does not answer: 503 within the sender's patience, /readyz says so. When it goes on, so does the
    ingress within seconds, and from then on every request succeeds.
    """
    await make_topics(kafka.bootstrap)
    with Ingress(kafka.bootstrap, tmp_path) as ingress:
        async with sending(ingress.port, 16) as senders:
            await senders.more(200)
            os.kill(kafka.pid, signal.SIGSTOP)
            try:
                await senders.until(lambda: senders.statuses[503] > 50)
                assert ingress.status("/readyz") == 503
            finally:
                os.kill(kafka.pid, signal.SIGCONT)
        await every_request_succeeds_once_ready(ingress)
        assert set(senders.statuses) == {200, 503}
        assert senders.slowest_s < SENDERS_PATIENCE_S
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))


async def test_the_ingress_stops_gracefully_under_load(kafka, tmp_path):
    """SIGTERM: every request that was begun is answered, every answer 200 is in Kafka, exit status 0."""
    await make_topics(kafka.bootstrap)
    with Ingress(kafka.bootstrap, tmp_path) as ingress:
        async with sending(ingress.port, 16) as senders:
            await senders.more(300)
            ingress.process.terminate()
            await senders.until(lambda: ingress.process.poll() is not None)
        assert ingress.process.returncode == 0
        assert senders.broken == 0
        assert set(senders.statuses) == {200}
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))


async def test_two_processes_are_replaced_without_a_failed_request(kafka, tmp_path):
    """SIGHUP replaces both processes, one after the other: no request fails, none is lost."""
    await make_topics(kafka.bootstrap)
    with Ingress(kafka.bootstrap, tmp_path, ingress_processes=2) as ingress:
        ingress.wait_until(lambda: ingress.log.count("listening") == 2)
        old = ingress.children()
        async with sending(ingress.port, 16) as senders:
            await senders.more(300)
            ingress.process.send_signal(signal.SIGHUP)
            await senders.until(lambda: "all ingress processes replaced" in ingress.log)
            await senders.until(lambda: not set(old) & set(ingress.children()))
            await senders.more(300)
        assert len(ingress.children()) == 2
        assert set(senders.statuses) == {200}
        assert senders.broken == 0
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))
        assert "eventpush_ingress_kafka_up 2.0" in ingress.metrics()


async def test_a_process_is_killed_and_replaced(kafka, tmp_path):
    """Kill -9 on one of two: every request that it breaks succeeds when it is repeated, a new process is started,
    nothing accepted is lost.
    """
    await make_topics(kafka.bootstrap)
    with Ingress(kafka.bootstrap, tmp_path, ingress_processes=2) as ingress:
        ingress.wait_until(lambda: ingress.log.count("listening") == 2)
        async with sending(ingress.port, 16) as senders:
            await senders.more(300)
            os.kill(ingress.children()[0], signal.SIGKILL)
            under_way = set(senders.unaccepted)
            await senders.until(lambda: under_way <= senders.accepted)  # repeated, and accepted now
            await senders.more(300)
            await senders.until(lambda: ingress.log.count("listening") == 3)
            await senders.more(300)
        assert set(senders.statuses) == {200}
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))


async def test_children_of_a_killed_parent_end(kafka, tmp_path):
    """Kill -9 on the parent: the children notice, finish and leave the port."""
    with Ingress(kafka.bootstrap, tmp_path, ingress_processes=2) as ingress:
        ingress.wait_until(lambda: ingress.log.count("listening") == 2)
        ingress.process.kill()
        ingress.process.wait()
        deadline = time.monotonic() + 15
        while ingress.status("/healthz") != 0:
            assert time.monotonic() < deadline


@contextlib.contextmanager
def two_ingresses(bootstrap, home):
    """Two instances that know nothing of each other."""
    for name in ("one", "two"):
        (home / name).mkdir()
    with Ingress(bootstrap, home / "one") as one, Ingress(bootstrap, home / "two") as two:
        yield one, two


async def test_a_rolling_restart_fails_no_request(kafka, tmp_path):
    """Two instances, each stopped with SIGTERM and started again under load, one at a time: every request is answered
    200, no connection breaks under one, nothing accepted is lost.
    """
    await make_topics(kafka.bootstrap)
    with two_ingresses(kafka.bootstrap, tmp_path) as instances:
        one, two = instances
        async with sending(one.port, 16, others=[two.port]) as senders:
            for instance in instances * 2:
                await senders.more(300)
                assert await asyncio.to_thread(instance.end) == 0
                await senders.more(300)
                await asyncio.to_thread(instance.start)
            await senders.more(300)
        assert set(senders.statuses) == {200}
        assert senders.broken == 0
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))


async def test_either_of_two_instances_is_killed(kafka, tmp_path):
    """Kill -9 on one of two instances at a time, under load: every request that it breaks succeeds when it is repeated
    at the other one, and nothing accepted is lost.
    """
    await make_topics(kafka.bootstrap)
    with two_ingresses(kafka.bootstrap, tmp_path) as instances:
        one, two = instances
        async with sending(one.port, 16, others=[two.port]) as senders:
            for instance in instances:
                await senders.more(300)
                under_way = set(senders.unaccepted)
                await asyncio.to_thread(instance.end, signal.SIGKILL)
                await senders.until(lambda under_way=under_way: under_way <= senders.accepted)
                await senders.more(300)
                await asyncio.to_thread(instance.start)
        assert set(senders.statuses) == {200}
        assert senders.accepted <= set(numbers(await raw_records(kafka.bootstrap)))


async def test_too_few_replicas_in_sync_is_never_200(tmp_path):
    """Two replicas are asked for and one is left: 503, never a 200; when it is back, 200 again."""
    with kafka_cluster(tmp_path / "cluster") as brokers:
        bootstrap = bootstrap_of(brokers)
        await make_topics(bootstrap, topic_replication_factor=3, topic_min_insync_replicas=3)
        with Ingress(bootstrap, tmp_path) as ingress:
            async with sending(ingress.port) as senders:
                await senders.more(100)
                await asyncio.to_thread(brokers[2].end, signal.SIGKILL)
                await senders.until(lambda: senders.statuses[503] > 50)
                accepted = len(senders.accepted)
                seen = senders.statuses[503]
                await senders.until(lambda: senders.statuses[503] > seen + 50)
                assert len(senders.accepted) == accepted
                await asyncio.to_thread(brokers[2].start)
                await senders.more(100)
            assert set(senders.statuses) == {200, 503}
            assert senders.accepted <= set(numbers(await raw_records(bootstrap)))


async def every_request_succeeds_once_ready(ingress):
    """Kafka has come back: /readyz says 200 soon, and the next requests all succeed."""
    back = time.monotonic()
    while await asyncio.to_thread(ingress.status, "/readyz") != 200:
        assert time.monotonic() < back + READY_AGAIN_MAX_S
        await asyncio.sleep(0.02)
    async with sending(ingress.port, 32) as senders:
        await senders.more(1_000)
    assert set(senders.statuses) == {200}


def resident_kib(pid: int) -> int:
    """The process's resident memory."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("no /proc here")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
