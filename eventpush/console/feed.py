"""Follow the events topic for the map, while somebody looks at it."""

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from eventpush.console.event_ring import EventRing, MapEvent
from eventpush.topic_reader import TopicMissingError, added_partitions, consumer_of
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import topics
from schemas.json_text import decoder_of

CAPACITY = 50_000
_UNWATCHED_S = 20.0
_RETRY_S = 2.0
_BATCH = 2_000
_POLL_MS = 500

_decode: Callable[[bytes], MapEvent] = decoder_of(MapEvent)


def event_of(value: bytes) -> MapEvent | None:
    """Decode an event of the topic; None for anything else. Pure."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return None


class EventFeed:
    """The newest events, from a consumer without a group that starts with the last `CAPACITY` of them."""

    def __init__(self, settings: Settings) -> None:
        self.ring = EventRing(CAPACITY)
        self.problem: str | None = None
        self._settings = settings
        self._watched_at_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Say that somebody looks: the feed ends 20 s after the last call."""
        self._watched_at_s = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def _is_watched(self) -> bool:
        return time.monotonic() - self._watched_at_s < _UNWATCHED_S

    async def _follow(self) -> None:
        while self._is_watched:
            try:
                async with consumer_of(self._settings, topics.EVENTS) as (consumer, partitions):
                    self.ring.clear()
                    await _seek_near_end(consumer, partitions)
                    self.problem = None
                    await self._read(consumer, partitions)
            except OperatorError as problem:
                missing = isinstance(problem, TopicMissingError)
                self.problem = str(problem) if missing else f"Kafka at {self._settings.kafka_bootstrap} does not answer"
                await asyncio.sleep(_RETRY_S)
        self.ring.clear()

    async def _read(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        while self._is_watched and not added_partitions(consumer, partitions):
            found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
            for records in found.values():
                self.ring.add([event for event in map(event_of, (record.value for record in records)) if event])
            behind = sum([(consumer.highwater(tp) or 0) - await consumer.position(tp) for tp in partitions])
            if behind > CAPACITY:  # the map shows the newest, and need not see the others
                await _seek_near_end(consumer, partitions)


async def _seek_near_end(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
    begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, max(begins[tp], ends[tp] - CAPACITY // len(partitions)))
