"""Read from Kafka how far the streams and the sink have come, and where topics end."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Self

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from runtime.kafka.connection import connection, consumer_connection
from runtime.platform.settings import Settings
from schemas import topics

_REQUEST_TIMEOUT_MS = 4_000
_READ_TIMEOUT_S, _POLL_MS = 0.5, 50
_FETCH_MAX_BYTES = 16_384  # it matters only whether there is a record

_Offsets = Mapping[TopicPartition, int]


class FinishedOffsets:
    """Connections to Kafka that read offsets; of use inside `connected` only."""

    def __init__(
        self, settings: Settings, admin: AIOKafkaAdminClient, appended: AIOKafkaConsumer, committed: AIOKafkaConsumer
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._appended = appended
        self._committed = committed
        #: Offsets between which there are markers and aborted records only: the first, and the one after the last.
        self._empty: dict[TopicPartition, tuple[int, int]] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, settings: Settings, partitions: Collection[TopicPartition]) -> AsyncIterator[Self]:
        """Connect; raises, as all methods do, KafkaError or OSError while Kafka is away."""
        admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=_REQUEST_TIMEOUT_MS)
        # A committed offset may be visible a moment before its transaction ends on the topics, so the end of what is
        # committed may still lie before the transaction's records: ends are read of what is appended.
        appended = _consumer(settings, "read_uncommitted")
        committed = _consumer(settings, "read_committed")
        try:
            await admin.start()
            await appended.start()
            await committed.start()
            committed.assign(list(partitions))
            committed.pause(*partitions)
            yield cls(settings, admin, appended, committed)
        finally:
            await asyncio.gather(appended.stop(), committed.stop(), admin.close(), return_exceptions=True)

    async def ends(self, partitions: Collection[TopicPartition]) -> _Offsets:
        """Return the offset after the last record appended to each partition."""
        ends: _Offsets = await self._appended.end_offsets(partitions)
        return ends

    async def finished(self, awaited: _Offsets) -> set[TopicPartition]:
        """Return those whose reader has committed everything before the given offset.

        A reader commits the offset after its last record; markers of transactions and aborted records may follow it.
        """
        positions = await self._positions()
        behind = {tp: (positions.get(tp, 0), end) for tp, end in awaited.items()}
        behind = {tp: (at, end) for tp, (at, end) in behind.items() if at < end and not self._is_empty(tp, at, end)}
        if behind:
            await self._look_for_records(behind)
        return {tp for tp in awaited if tp not in behind or self._is_empty(tp, *behind[tp])}

    async def _positions(self) -> dict[TopicPartition, int]:
        """Return the committed offsets, of the streams on the raw topic and of the sink on the others."""
        streams = await self._admin.list_consumer_group_offsets(self._settings.streams_app_id)
        sink = await self._admin.list_consumer_group_offsets(self._settings.sink_app_id)
        of_raw = {tp: at.offset for tp, at in streams.items() if tp.topic == topics.RAW}
        return {tp: at.offset for tp, at in sink.items()} | of_raw

    def _is_empty(self, tp: TopicPartition, begin: int, end: int) -> bool:
        first, after = self._empty.get(tp, (0, 0))
        return first <= begin and end <= after

    async def _look_for_records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Note which of the ranges of offsets hold no committed record; leave out what cannot be read soon."""
        unread = set(ranges)
        for tp, (begin, _) in ranges.items():
            self._committed.seek(tp, begin)
        self._committed.resume(*ranges)
        deadline_s = asyncio.get_running_loop().time() + _READ_TIMEOUT_S
        try:
            while unread and asyncio.get_running_loop().time() < deadline_s:
                unread -= set(await self._committed.getmany(*unread, timeout_ms=_POLL_MS))
                for tp in list(unread):
                    begin, end = ranges[tp]
                    if await self._committed.position(tp) >= end:
                        self._empty[tp] = (begin, end)
                        unread.discard(tp)
        finally:
            self._committed.pause(*ranges)


def _consumer(settings: Settings, isolation_level: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **consumer_connection(settings),
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        max_partition_fetch_bytes=_FETCH_MAX_BYTES,
    )
