"""Group commit, on a producer that does what the test says."""

import asyncio
from types import SimpleNamespace

import pytest
import structlog
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, OutOfOrderSequenceNumber
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from ingress import producer_session
from ingress.batching import Record, partition_of
from ingress.errors import Rejection, RequestError
from ingress.publisher import KafkaPublisher
from runtime.kafka import partition_count
from tests.unit.ingress_support import settings

PARTITIONS = 4
BROKERS = 2  # a partition's leader is its number modulo this


class Producer:
    """Takes the place of aiokafka's: acknowledges, fails or is silent, as `Kafka` says."""

    def __init__(self, kafka, **arguments):
        self.kafka = kafka
        self.arguments = arguments
        cluster = SimpleNamespace(
            available_partitions_for_topic=lambda _topic: set(range(kafka.leaders)),
            leader_for_partition=lambda of: of.partition % BROKERS,
        )
        self.client = SimpleNamespace(close=self.stop, cluster=cluster, force_metadata_update=self.asked)
        self._message_accumulator = SimpleNamespace(fail_all=self.fail_all)
        self.waiting = []
        self.closed = False
        kafka.producers.append(self)

    async def start(self):
        if self.kafka.away:
            raise KafkaConnectionError("connection refused")

    async def stop(self):
        self.closed = True

    async def asked(self):
        return not self.kafka.away

    def fail_all(self, error):
        for future in self.waiting:
            if not future.done():
                future.set_exception(error)

    async def partitions_for(self, _topic):
        return set(range(self.kafka.partitions))

    def create_batch(self):
        return BatchBuilder(self.arguments["max_batch_size"], 0)

    async def send_batch(self, builder, _topic, *, partition):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.kafka.sent.append((partition, builder.record_count()))
        if isinstance(self.kafka.answer, Exception):
            future.set_exception(self.kafka.answer)
        elif self.kafka.answer == "acknowledge":
            asyncio.get_running_loop().call_later(0.001, settle, future)
        return future


def settle(future):
    if not future.done():
        future.set_result(None)


class Kafka:
    def __init__(self):
        self.producers = []
        self.sent = []
        self.away = False
        self.leaders = self.partitions = PARTITIONS
        self.answer = "acknowledge"

    async def partitions_now(self, _producer, _topic):
        return self.partitions


@pytest.fixture
def kafka(monkeypatch):
    fake = Kafka()
    monkeypatch.setattr(producer_session, "AIOKafkaProducer", lambda **arguments: Producer(fake, **arguments))
    return fake


async def started(**given):
    publisher = KafkaPublisher(settings(**({"ingress_publish_timeout_ms": 1_900} | given)))
    await publisher.start()
    return publisher


def record(key=b"350612075195931", value=b"{}"):
    return Record(key, value, 1, [("receipt_id", b"r")])


async def publish(publisher, records):
    """Returns when they are safe, raises what is said otherwise."""
    outcome = asyncio.get_running_loop().create_future()

    def settle(failure):
        if not outcome.done():
            outcome.set_result(failure)

    publisher.publish(records, settle)
    if failure := await outcome:
        raise failure


async def refused(publishing):
    with pytest.raises(RequestError) as caught:
        await publishing
    assert caught.value.headers == {"Retry-After": "1"}
    return caught.value.reason


async def test_many_events_are_one_write(kafka):
    """Events that arrive together go in one batch per partition, and everyone has its answer."""
    publisher = await started()
    await asyncio.gather(*(publish(publisher, [record()]) for _ in range(100)))
    assert kafka.sent == [(kafka.sent[0][0], 100)]
    await publisher.stop()


async def test_while_a_write_is_on_its_way_the_next_one_fills(kafka):
    """One write to a broker at a time, so that a device's events keep their order and many are one write; another
    broker's partitions go on.
    """
    publisher = await started()
    kafka.answer = "silence"
    here = _partition(record().key)
    keys = {_partition(key): key for key in (b"%d" % n for n in range(99))}
    neighbour, elsewhere = keys[(here + BROKERS) % PARTITIONS], keys[(here + 1) % PARTITIONS]
    first = asyncio.create_task(publish(publisher, [record()]))
    await asyncio.sleep(0.02)
    later = [asyncio.create_task(publish(publisher, [record()])) for _ in range(10)]
    later += [asyncio.create_task(publish(publisher, [record(neighbour)])) for _ in range(5)]
    other = asyncio.create_task(publish(publisher, [record(elsewhere)]))
    await asyncio.sleep(0.05)
    assert kafka.sent == [(here, 1), (_partition(elsewhere), 1)]
    kafka.answer = "acknowledge"
    kafka.producers[0].waiting[0].set_result(None)
    await asyncio.gather(first, *later)
    assert sorted(kafka.sent[2:]) == sorted([(here, 10), (_partition(neighbour), 5)])
    kafka.producers[0].waiting[1].set_result(None)
    await other
    await publisher.stop()


async def test_full_batches_are_sent_and_followed(kafka):
    """More than a batch holds is several batches, in order, all acknowledged."""
    publisher = await started()
    await publish(publisher, [record(value=b"x" * 200_000) for _ in range(10)])
    assert sum(count for _, count in kafka.sent) == 10
    assert len(kafka.sent) >= 4
    assert publisher.held_bytes == 0
    await publisher.stop()


async def test_no_acknowledgement_is_503_within_the_timeout_and_a_new_producer(kafka):
    """Silence: 503 after the timeout, never a 200; the producer is given up, the next one serves."""
    publisher = await started(ingress_publish_timeout_ms=200)
    kafka.answer = "silence"
    begun = asyncio.get_running_loop().time()
    assert await refused(publish(publisher, [record()])) is Rejection.KAFKA_AWAY
    assert asyncio.get_running_loop().time() - begun < 1.9
    kafka.answer = "acknowledge"
    await publish(publisher, [record()])
    assert len(kafka.producers) == 2
    async with asyncio.timeout(5):
        while not kafka.producers[0].closed or publisher.held_bytes:
            await asyncio.sleep(0.01)
    await publisher.stop()


async def test_a_poisoned_producer_is_replaced(kafka):
    """A sequence error poisons a partition for its producer's life: it is not used again."""
    publisher = await started()
    kafka.answer = OutOfOrderSequenceNumber()
    assert await refused(publish(publisher, [record()])) is Rejection.KAFKA_AWAY
    kafka.answer = "acknowledge"
    await publish(publisher, [record()])
    assert len(kafka.producers) == 2
    await publisher.stop()


async def test_kafka_away_is_refused_at_once_and_holds_nothing(kafka):
    """While there is no connection: 503 at once, no memory; the first event after Kafka's return is taken."""
    kafka.away = True
    publisher = await started()
    with structlog.testing.capture_logs() as logged:
        for _ in range(1_000):
            assert await refused(publish(publisher, [record()])) is Rejection.KAFKA_AWAY
        await asyncio.sleep(0.3)  # it tries again meanwhile
    assert logged == []  # one line when it began, none for an event or an attempt
    assert publisher.held_bytes == 0
    assert await publisher.unreachable() == "Kafka unreachable: KafkaConnectionError: connection refused"
    kafka.away = False
    async with asyncio.timeout(5):
        while await publisher.unreachable():
            await asyncio.sleep(0.01)
    await publish(publisher, [record()])
    kafka.leaders = 3
    assert await publisher.unreachable() == "1 of 4 partitions of telematics.raw.v1 have no leader"
    kafka.away = True
    assert await publisher.unreachable() == "Kafka does not answer"
    await publisher.stop()


async def test_a_refused_record_is_a_pause(kafka):
    """While the topics grow: 503 with a longer time to retry, one write a second that asks again, and the first that is
    taken ends it. Nothing is held, and no line is a warning.
    """
    publisher = await started()
    kafka.answer = MessageSizeTooLargeError()
    with structlog.testing.capture_logs() as logged:
        for _ in range(50):
            with pytest.raises(RequestError) as caught:
                await publish(publisher, [record()])
            assert (caught.value.reason, caught.value.headers) == (Rejection.PAUSED, {"Retry-After": "5"})
    assert len(kafka.sent) == 1
    assert {line["log_level"] for line in logged} == {"info"}
    assert publisher.held_bytes == 0
    kafka.answer = "acknowledge"
    await asyncio.sleep(1.1)
    await publish(publisher, [record()])
    await publish(publisher, [record()])
    await publisher.stop()


async def test_a_partition_is_never_chosen_by_an_old_number(kafka, monkeypatch):
    """A number of partitions that may have changed is asked for again before the write: after that, the record is
    refused once, and goes where the new number says.
    """
    monkeypatch.setattr(partition_count, "KNOWN_FOR_S", 0.0)
    monkeypatch.setattr(partition_count, "partitions_now", kafka.partitions_now)
    publisher = await started()
    await publish(publisher, [record()])
    kafka.partitions = 12
    with pytest.raises(RequestError) as caught:
        await publish(publisher, [record()])
    assert caught.value.reason is Rejection.PAUSED
    await asyncio.sleep(1.1)
    await publish(publisher, [record()])
    assert [partition for partition, _ in kafka.sent] == [partition_of(record().key, count) for count in (4, 12)]
    await publisher.stop()


async def test_bytes_in_flight_are_bounded(kafka):
    """Beyond the bound: 503 at once; when Kafka has acknowledged there is room again."""
    publisher = await started(ingress_inflight_max_bytes=1_048_576)
    kafka.answer = "silence"
    big = asyncio.gather(publish(publisher, [record(value=b"x" * 300_000) for _ in range(3)]))
    await asyncio.sleep(0.02)
    assert await refused(publish(publisher, [record(value=b"x" * 300_000)])) is Rejection.OVERLOADED
    kafka.answer = "acknowledge"
    for future in kafka.producers[0].waiting:
        future.set_result(None)
    await big
    await publish(publisher, [record(value=b"x" * 300_000)])
    await publisher.stop()


async def test_a_failing_callback_keeps_the_outcome_from_no_other(kafka):
    """A fault in one request's answer: the others of its write have theirs, and the next write is made."""
    publisher = await started()
    with structlog.testing.capture_logs() as logged:
        publisher.publish([record()], lambda _failure: 1 // 0)
        await publish(publisher, [record()])
        await publish(publisher, [record()])
    assert [count for _, count in kafka.sent] == [2, 1]
    assert [line["error"] for line in logged if line["log_level"] == "error"] == ["ZeroDivisionError"]
    assert publisher.held_bytes == 0
    await publisher.stop()


async def test_one_failure_refuses_the_whole_request(kafka):
    """Events of several partitions are acknowledged whole or not at all."""
    publisher = await started(ingress_publish_timeout_ms=200)
    kafka.answer = "silence"
    whole = asyncio.create_task(publish(publisher, [record(b"%d" % n) for n in range(20)]))
    await asyncio.sleep(0.05)
    assert len(kafka.sent) > 1
    for future in kafka.producers[0].waiting[1:]:
        future.set_result(None)
    assert await refused(whole) is Rejection.KAFKA_AWAY
    await publisher.stop()


async def test_stopping_sends_what_is_open(kafka):
    """Stop: what was taken is written and acknowledged; afterwards nothing is taken."""
    publisher = await started(ingress_linger_ms=100)
    await publish(publisher, [record()])
    waiting = asyncio.create_task(publish(publisher, [record()]))
    await asyncio.sleep(0)
    await publisher.stop()
    await waiting
    assert await refused(publish(publisher, [record()])) is Rejection.KAFKA_AWAY
    assert all(producer.closed for producer in kafka.producers)


def _partition(key):
    return DefaultPartitioner()(key, list(range(PARTITIONS)), [])


async def test_a_repeat_without_an_imei_comes_to_the_same_partition(kafka):
    """Where its first is remembered: it is a duplicate there, and would be a second dead letter anywhere else."""
    publisher = await started()
    broken = Record(None, b'{"IMEI":12}', 1, [])
    for _ in range(PARTITIONS):
        await publish(publisher, [broken])
    assert len({partition for partition, _ in kafka.sent}) == 1
    await publisher.stop()


@given(st.binary(min_size=1, max_size=64), st.integers(1, 300))
def test_partitions_are_kafkas(key, partitions):
    """A key goes where Kafka's default partitioner sends it."""
    everywhere = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)
