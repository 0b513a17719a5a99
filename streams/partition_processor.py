"""The stream stage for one partition of the raw topic: take over, then process and commit batch by batch."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from aiokafka import TopicPartition
from faust.types import TP

from runtime.adapters.aiokafka_transactions import GroupMember, RefusedMemberError, stable_offset
from runtime.adapters.faust import BatchApp
from runtime.consumer.batch import Batch
from runtime.consumer.coalescer import Coalescer
from runtime.consumer.offset_committer import OffsetCommitter
from runtime.kafka.record_format import Records, records_of
from runtime.platform import metrics
from runtime.platform.settings import Settings
from schemas import account, times, topics
from streams.batch_processor import BatchResult, PartitionState, RawBatch
from streams.device_registry import DeviceRegistry
from streams.disk_segment import forget_window, window_on_disk
from streams.latest_states import LatestStates, encode_states
from streams.memory_segment import MemorySegment
from streams.state_restore import encode, next_offset, reader, restore, restore_states
from streams.takeover import Fence, Takeover
from streams.transactions import Commit, Transactions
from streams.type_topics import TypeTopics
from streams.window import DeduplicationWindow
from streams.window_table import WindowTable

log = structlog.get_logger()

_STEP_MAX_US = 60_000_000
_OPENING_TRIES, _PAUSE_S = 25, 0.2


def advance(stream_time_us: int, latest_us: int, steady_now_us: int) -> int:
    """Return the stream time after a batch whose latest arrival is `latest_us`; it never goes back.

    Stream time lets identities expire, so a clock that jumps ahead must not carry it along: nothing arrives later than
    now, by a clock that cannot jump.
    """
    return max(stream_time_us, min(latest_us, steady_now_us + _STEP_MAX_US))


class PartitionProcessor:
    """A `Processor` (see `runtime.consumer.partition_tasks`): owns the partition's window."""

    def __init__(
        self,
        settings: Settings,
        app: BatchApp,
        processing: Coalescer[RawBatch, BatchResult],
        transactions: Transactions,
        fence: Fence,
        tp: TP,
        table: WindowTable,
        registry: DeviceRegistry,
        type_topics: TypeTopics,
        steady_now_us: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._source = TopicPartition(tp.topic, tp.partition)
        self._changelog = TopicPartition(topics.WINDOW, tp.partition)
        self._accounts = TopicPartition(topics.ACCOUNT, tp.partition)
        self._latest = TopicPartition(topics.LATEST, tp.partition)
        self._table = table
        self._registry = registry
        self._type_topics = type_topics
        self._steady_now_us = steady_now_us
        self._app = app
        self._processing = processing
        self._transactions = transactions
        self._committer = OffsetCommitter(app, tp, rebalance_timeout_s=settings.stall_timeout_s, fetch=stable_offset)
        self._takeover = Takeover(settings, app, self._committer, fence, transactions.id)

    async def open(self) -> int:
        """Fence the previous owner, find where it stopped, restore its window and devices, claim: in this order."""
        committed = await self._takeover.committed_offset()
        await self._registry.loaded.wait()
        self._window = await self._empty_or_kept()
        self._table.put(self._source.partition, self._window)
        states = LatestStates()
        async with reader(self._settings, self._source, self._changelog, self._accounts, self._latest) as consumer:
            consumer.pause(self._source, self._changelog, self._latest)
            await self._takeover.wait_for_ends(consumer, (self._changelog, self._accounts, self._latest))
            position = await next_offset(consumer, committed, self._source, self._accounts)
            consumer.pause(self._accounts)
            consumer.resume(self._changelog)
            await restore(consumer, self._changelog, self._window)
            consumer.pause(self._changelog)
            consumer.resume(self._latest)
            await restore_states(consumer, self._latest, states)
        await self._takeover.claim(position)
        self._state = PartitionState(self._source.partition, self._window, states)
        return position

    async def process(self, batch: Batch) -> None:
        """Process the batch, commit its outcome, then add its identities to the window."""
        started_s = time.perf_counter()
        result = await self._processing.submit(RawBatch(self._state, batch.records))
        stream_time_us = advance(self._window.stream_time_us, result.latest_us, self._steady_now_us())
        await self._type_topics.ensure(result.types)
        offsets = await self._commit(self._outputs(batch, result, stream_time_us), batch.next_offset)
        self._window.add(result.rows, stream_time_us, offsets.get(topics.WINDOW, -1))
        self._state.states.update(result.states_us)
        _measure(result, len(batch.records), time.perf_counter() - started_s)

    async def close(self) -> None:
        """Close the window."""
        self._table.forget(self._source.partition)

    async def _commit(self, outputs: Mapping[str, Records], next_offset: int) -> dict[str, int]:
        """Commit the outcome of a batch as a member of the current generation, in which the partition is ours.

        A refusal leaves nothing behind, so the same outcome is committed again if the partition is still as we left it.
        """
        while True:
            member = await self._confirmed_member()
            try:
                offsets = await self._transactions.commit(Commit(self._source, outputs, next_offset, member))
            except RefusedMemberError as error:
                log.info("committing again", partition=self._source.partition, reason=str(error))
                await self._has_rejoined(member)
            else:
                self._committer.follow(next_offset, self._transactions.id)
                return offsets

    async def _confirmed_member(self) -> GroupMember:
        """Return the member that the partition belongs to; after a rebalance, see first that it still does."""
        member = self._committer.member
        if member is None or member.joined != GroupMember.of(self._app.aiokafka_consumer).joined:
            await self._takeover.confirm()
            member = self._committer.member
            assert member is not None  # noqa: S101 - it has just been read
        return member

    async def _has_rejoined(self, refused: GroupMember) -> None:
        """Wait until the consumer, too, knows that its membership is over; raise TimeoutError if it never does."""
        async with asyncio.timeout(self._settings.stall_timeout_s):
            while GroupMember.of(self._app.aiokafka_consumer).joined == refused.joined:  # noqa: ASYNC110 - of a library
                await asyncio.sleep(_PAUSE_S)

    async def _empty_or_kept(self) -> DeduplicationWindow:
        """Return the window before its changelog is read.

        Retries opening files on disk, since the previous owner may be closing them, then discards them: the changelog
        has their content too.
        """
        retention_us = self._settings.window_s * 1_000_000
        if self._settings.window_store == "memory":
            return DeduplicationWindow(retention_us, lambda _: MemorySegment())
        directory = self._settings.data_dir / "window" / str(self._source.partition)
        for _ in range(_OPENING_TRIES):
            try:
                return window_on_disk(directory, retention_us)
            except Exception as error:
                reason = str(error)
                await asyncio.sleep(_PAUSE_S)
        log.warning(
            "cannot open the window on disk; restoring it from the changelog", directory=str(directory), reason=reason
        )
        forget_window(directory)
        return window_on_disk(directory, retention_us)

    def _outputs(self, batch: Batch, result: BatchResult, stream_time_us: int) -> dict[str, Records]:
        """Return what the batch publishes, by topic."""
        outputs: dict[str, Records] = {}
        if result.types:
            outputs[topics.EVENTS] = result.events
            of_topic: dict[str, list[int]] = {}
            of_type = {event: of_topic.setdefault(self._type_topics.route(event), []) for event in set(result.types)}
            for at, event in enumerate(result.types):
                of_type[event].append(at)
            outputs |= {topic: result.events.at(positions) for topic, positions in of_topic.items()}
        if result.states:
            outputs[topics.LATEST] = encode_states(result.states, result.latest_us // 1000)
        if result.dead_letters:
            outputs[topics.DEAD_LETTER] = records_of(result.dead_letters)
        if len(result.rows):
            outputs[topics.WINDOW] = records_of([(b"", encode(result.rows, stream_time_us), stream_time_us // 1000)])
        now_us = time.time_ns() // 1000
        summary = account.BatchAccount(
            self._source.partition, batch.from_offset, batch.next_offset, times.rfc3339(now_us), result.counts
        )
        outputs[topics.ACCOUNT] = records_of([(b"", account.encode(summary), now_us // 1000)])
        return outputs


def _measure(result: BatchResult, records: int, seconds: float) -> None:
    unique, dead = len(result.types), len(result.dead_letters)
    for (reason, category), letters in result.reasons.items():
        metrics.STREAMS_DEAD_LETTERS.metric.labels(reason, category).inc(letters)
    for code, events in result.warnings.items():
        metrics.STREAMS_WARNINGS.metric.labels(code).inc(events)
    metrics.STREAMS_EVENTS.metric.labels("unique").inc(unique)
    metrics.STREAMS_EVENTS.metric.labels("dead_lettered").inc(dead)
    metrics.STREAMS_EVENTS.metric.labels("erased").inc(result.erased)
    metrics.STREAMS_EVENTS.metric.labels("duplicate").inc(records - unique - dead - result.erased)
    metrics.STREAMS_BATCH_S.metric.observe(seconds)
    metrics.STREAMS_BATCH_EVENTS.metric.observe(records)
