"""The embedded Kafka is a real one: transactions, durable data, a cluster."""

import asyncio
import signal
import uuid
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from runtime.adapters.aiokafka_transactions import high_watermarks
from tests.stack import READY_S, Kafka, bootstrap_of, kafka_cluster


async def make_topic(bootstrap: str, replicas: int = 1) -> str:
    name = f"test-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        response = await admin.create_topics([NewTopic(name, 1, replicas)])
        assert response.topic_errors[0][1] == 0, response
    finally:
        await admin.close()
    return name


async def send(bootstrap: str, topic: str, *values: bytes, commit: bool = True) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"tx-{topic}", acks="all")
    await producer.start()
    try:
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(topic, value)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


async def read_committed(bootstrap: str, topic: str) -> list[bytes]:
    """All values; waits for the ends of transactions, which the broker writes after it has answered."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        async with asyncio.timeout(READY_S):
            while (ends := await consumer.end_offsets([tp])) != await high_watermarks(consumer, [tp]):
                await asyncio.sleep(0.02)
        end = ends[tp]
        values = []
        while await consumer.position(tp) < end:
            records = await consumer.getmany(tp, timeout_ms=200)
            values += [record.value for record in records.get(tp, [])]
        return values
    finally:
        await consumer.stop()


async def test_transactions(kafka_bootstrap: str) -> None:
    """A `read_committed` consumer reads committed records and no aborted ones."""
    topic = await make_topic(kafka_bootstrap)
    await send(kafka_bootstrap, topic, b"kept", b"too")
    await send(kafka_bootstrap, topic, b"aborted", commit=False)
    assert await read_committed(kafka_bootstrap, topic) == [b"kept", b"too"]


async def test_topics_are_not_made_by_naming_them(kafka_bootstrap: str) -> None:
    """A producer cannot create a topic; `eventpush topics` does."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    try:
        await producer.client.add_topic("never-created")
        await producer.client.force_metadata_update()
        assert "never-created" not in producer.client.cluster.topics()
    finally:
        await producer.stop()


async def test_killed_broker_comes_back_with_its_data(tmp_path: Path) -> None:
    """After kill -9 the same directory starts again, and every acknowledged record is there."""
    kafka = Kafka.at(tmp_path, heap_mb=256)
    kafka.start()
    try:
        topic = await make_topic(kafka.bootstrap)
        await send(kafka.bootstrap, topic, b"before")
        kafka.end(signal.SIGKILL)
        kafka.start()
        await send(kafka.bootstrap, topic, b"after")
        assert await read_committed(kafka.bootstrap, topic) == [b"before", b"after"]
    finally:
        kafka.end_if_running()


async def test_cluster_survives_a_node(tmp_path: Path) -> None:
    """Three nodes with RF 3 and min ISR 2 accept and keep records while any one of them is dead."""
    with kafka_cluster(tmp_path) as nodes:
        bootstrap = bootstrap_of(nodes)
        topic = await make_topic(bootstrap, replicas=3)
        await send(bootstrap, topic, b"with three")
        nodes[0].end(signal.SIGKILL)
        left = bootstrap_of(nodes[1:])
        await send(left, topic, b"with two")
        assert await read_committed(left, topic) == [b"with three", b"with two"]
