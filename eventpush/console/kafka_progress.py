"""Read from Kafka how far the stages are, over connections that stay open."""

import contextlib
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from eventpush.console.progress import Backlog, Progress
from runtime.adapters import aiokafka_closing
from runtime.kafka.connection import connection
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import topics

_REQUEST_TIMEOUT_MS = 4_000
_READ_TIMEOUT_S = 0.5
_POLL_MS = 100
_OUTPUTS = (topics.EVENTS, topics.DEAD_LETTER)
_FETCH_MAX_BYTES = 65_536  # one record of each partition is wanted

_Offsets = dict[TopicPartition, int]


class KafkaProgress:
    """Reads offsets and the first waiting records; connects on first use, and again after an error."""

    def __init__(self, settings: Settings) -> None:
        aiokafka_closing.install()
        self._settings = settings
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self) -> Progress:
        """Return the backlogs of all partitions; raise `OperatorError` if Kafka is unavailable."""
        try:
            if self._consumer is None or self._admin is None:
                await self._connect()
            assert self._consumer is not None and self._admin is not None  # noqa: S101, PT018 - connected
            return await self._read(self._consumer, self._admin)
        except BaseException as error:
            await self.close()
            if isinstance(error, KafkaError | OSError):
                raise OperatorError(f"Kafka at {self._settings.kafka_bootstrap} does not answer", "") from None
            raise

    async def close(self) -> None:
        """Close the connections."""
        consumer, admin, self._consumer, self._admin = self._consumer, self._admin, None, None
        for client, close in ((consumer, "stop"), (admin, "close")):
            if client is not None:
                with contextlib.suppress(KafkaError, OSError):
                    await getattr(client, close)()

    async def _connect(self) -> None:
        self._admin = AIOKafkaAdminClient(**connection(self._settings), request_timeout_ms=_REQUEST_TIMEOUT_MS)
        await self._admin.start()
        self._consumer = AIOKafkaConsumer(
            **connection(self._settings),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            max_partition_fetch_bytes=_FETCH_MAX_BYTES,
            enable_auto_commit=False,
        )
        await self._consumer.start()
        described = await self._admin.describe_topics([topics.RAW, *_OUTPUTS])
        self._consumer.assign(
            [TopicPartition(topic["topic"], found["partition"]) for topic in described for found in topic["partitions"]]
        )
        self._consumer.pause(*self._consumer.assignment())

    async def _read(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> Progress:
        inputs = {tp for tp in consumer.assignment() if tp.topic == topics.RAW}
        outputs = consumer.assignment() - inputs
        ends: _Offsets = await consumer.end_offsets(inputs)
        ends |= await consumer.end_offsets(outputs)
        done = await _committed(admin, self._settings.streams_app_id)
        done |= {tp: at for tp, at in (await _committed(admin, self._settings.sink_app_id)).items() if tp in outputs}
        begins = await consumer.beginning_offsets(consumer.assignment())
        waiting = {tp: (max(begins[tp], done.get(tp, 0)), end) for tp, end in ends.items()}
        waiting = {tp: (begin, end) for tp, (begin, end) in waiting.items() if begin < end}
        oldest_us, empty = await first_times(consumer, waiting)
        return Progress(
            backlogs=[
                Backlog(
                    stage="streams" if tp in inputs else "sink",
                    topic=tp.topic,
                    partition=tp.partition,
                    records=end - begin,
                    oldest_us=oldest_us.get(tp),
                )
                for tp, (begin, end) in sorted(waiting.items())
                if tp not in empty
            ],
        )


async def _committed(admin: AIOKafkaAdminClient, group: str) -> _Offsets:
    found = await admin.list_consumer_group_offsets(group)
    return {tp: at.offset for tp, at in found.items() if at.offset >= 0}


async def first_times(
    consumer: AIOKafkaConsumer, ranges: Mapping[TopicPartition, tuple[int, int]]
) -> tuple[_Offsets, set[TopicPartition]]:
    """Return the arrival (µs) of the first record of each range, and those ranges that hold only transaction markers.

    What cannot be read in time is in neither.
    """
    found: _Offsets = {}
    empty: set[TopicPartition] = set()
    deadline_s = time.monotonic() + _READ_TIMEOUT_S
    for tp, (begin, _) in ranges.items():
        consumer.seek(tp, begin)
    consumer.resume(*ranges)
    try:
        while (unread := ranges.keys() - found.keys() - empty) and time.monotonic() < deadline_s:
            for tp, records in (await consumer.getmany(*unread, timeout_ms=_POLL_MS)).items():
                found[tp] = records[0].timestamp * 1_000
            for tp in unread - found.keys():
                if await consumer.position(tp) >= ranges[tp][1]:
                    empty.add(tp)
    finally:
        consumer.pause(*ranges)
    return found, empty
