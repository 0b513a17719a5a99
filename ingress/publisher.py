"""The publisher: many requests, one write to Kafka (group commit).

Each record joins the open batch of its partition (`batching`), batches are sent on the current `ProducerSession`, and
every request in a batch gets its outcome by a call: waking a task for each would cost more than the rest of this
module. A write costs the same for many events as for few, and the order of a device's events is that of their arrival.

No request waits longer than the timeout. The outcome of what timed out is unknown: it may be in Kafka, so the sender's
retry may be a duplicate, which the stream stage drops. While there is no connection, events are rejected at once, so
nothing piles up. So they are while the brokers refuse records because the topics get more partitions, but for one write
a second that asks whether they still do.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

import structlog

from ingress.batching import Batch, Batcher, Record
from ingress.delivery import AllOf, DeliveryCallback
from ingress.errors import Rejection, RequestError, unavailable
from ingress.metrics_buffer import MetricsBuffer
from ingress.producer_session import WHILE_GROWING, ProducerSession, keep_connected
from runtime.kafka.connection import connection as kafka_connection
from runtime.platform import metrics
from runtime.platform.settings import Settings

log = structlog.get_logger(__name__)

_PAUSE_S = 1.0  # after a refusal, until the next write asks
_RETRY_AFTER_PAUSE_S = 5


class Publisher(Protocol):
    """Where accepted events go."""

    held_bytes: int  # not acknowledged yet

    async def start(self) -> None:
        """Try to connect once, and keep trying in the background."""

    async def stop(self) -> None:
        """Send open batches, wait for what is in flight (bounded), close."""

    def publish(self, records: Sequence[Record], callback: DeliveryCallback) -> None:
        """Take the records and call `callback` once, later. Raise `RequestError` (503) when it takes none of them."""

    async def unreachable(self) -> str | None:
        """Return None when a record would be taken now, otherwise the problem."""


class KafkaPublisher:
    """The publisher to Kafka's raw topic; see the module's docstring."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.ingress_publish_timeout_ms / 1000
        self._inflight_max_bytes = settings.ingress_inflight_max_bytes
        self._loop = asyncio.get_running_loop()
        self._metrics = MetricsBuffer()
        self._batcher = Batcher(0, 0, self._opened)  # of the right size once the partitions are known
        self._session: ProducerSession | None = None
        self._away: str | None = "not connected yet"  # why no record is taken
        self._away_since_s = time.monotonic()
        self._away_is_logged = False
        self._paused_until_s: float | None = None  # by the loop's clock; None: the last write was not refused
        self._first_attempt_done = asyncio.Event()
        self._flush_handle: asyncio.Handle | None = None
        self._reconnect_loop: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.held_bytes = 0  # of batches that are open or in flight, answered or not

    # --- a record's way ------------------------------------------------------------------------------------------

    def publish(self, records: Sequence[Record], callback: DeliveryCallback) -> None:
        """See `Publisher`."""
        if self._away is not None:
            raise unavailable(Rejection.KAFKA_AWAY, "events cannot be stored right now; retry")
        if self._paused_until_s is not None and self._loop.time() < self._paused_until_s:
            raise _paused()
        size = len(records[0].value) if len(records) == 1 else sum(len(record.value) for record in records)
        if self.held_bytes + size > self._inflight_max_bytes:
            raise unavailable(Rejection.OVERLOADED, "too many events in flight; retry")
        if len(records) == 1:
            self._append(records[0]).callbacks.append(callback)
        else:
            batches = {self._append(record) for record in records}
            joined = AllOf(len(batches), callback)
            for batch in batches:
                batch.callbacks.append(joined)

    def _append(self, record: Record) -> Batch:
        batch, size_bytes = self._batcher.append(record)
        self.held_bytes += size_bytes
        return batch

    def _opened(self, batch: Batch) -> None:
        batch.deadline = self._loop.call_later(self._timeout_s, self._timed_out, batch)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush_handle is None:
            wait_s = self._batcher.due_in_s(self._loop.time())
            self._flush_handle = (
                self._loop.call_later(wait_s, self._flush) if wait_s > 0 else self._loop.call_soon(self._flush)
            )

    def _flush(self) -> None:
        self._flush_handle = None
        session = self._session
        if session is None:
            return
        batches = self._batcher.take_due(self._loop.time(), session.ready_partitions())
        if batches:
            session.reserve(batches)
            self._spawn(session.send(batches, self._sent))

    def _sent(self, batch: Batch, error: BaseException | None) -> None:
        """Settle a batch that Kafka has acknowledged, or that failed."""
        self.held_bytes -= batch.size_bytes
        if self._batcher:
            self._flush_soon()
        if error is None:
            self._metrics.stored(batch.builder.record_count(), batch.size_bytes)
            if self._paused_until_s is not None:
                self._resumed()
            batch.settle(None)
        elif isinstance(error, WHILE_GROWING):
            self._refused()
            batch.settle(_paused())
        else:
            batch.settle(_not_stored())

    def _refused(self) -> None:
        if self._paused_until_s is None:
            log.info("the topics are getting more partitions, rejecting events")
            metrics.INGRESS_PAUSED.metric.set(1)
        self._paused_until_s = self._loop.time() + _PAUSE_S

    def _resumed(self) -> None:
        log.info("accepting events again")
        metrics.INGRESS_PAUSED.metric.set(0)
        self._paused_until_s = None

    def _timed_out(self, batch: Batch) -> None:
        batch.settle(_not_stored())
        if batch.session is None:  # not sent yet, and now it never will be
            self._batcher.remove(batch)
            self.held_bytes -= batch.size_bytes
        else:
            batch.session.mark_broken(f"no acknowledgement within {self._timeout_s:g} s")

    # --- the connection ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Publisher`. Raise `OperatorError` for unusable Kafka settings."""
        kafka_connection(self._settings)
        self._reconnect_loop = asyncio.create_task(
            keep_connected(
                self._settings, connected=self._connected, broken=self._session_broken, failed=self._connect_failed
            )
        )
        await self._first_attempt_done.wait()

    def _connected(self, session: ProducerSession) -> None:
        metrics.INGRESS_PRODUCERS.metric.inc()
        metrics.INGRESS_KAFKA_UP.metric.set(1)
        if self._away is not None:
            away_s = round(time.monotonic() - self._away_since_s, 1)
            log.info("connected to Kafka", partitions=session.partitions, away_s=away_s)
        if self._batcher.partitions != session.partitions:
            self._reject_waiting()
            self._batcher = Batcher(session.partitions, self._settings.ingress_linger_ms / 1000, self._opened)
        self._batcher.new_builder = session.producer.create_batch
        self._session, self._away, self._away_is_logged = session, None, False
        self._first_attempt_done.set()
        self._flush_soon()

    def _session_broken(self, session: ProducerSession) -> None:
        self._session = None
        metrics.INGRESS_KAFKA_UP.metric.set(0)
        self._spawn(session.close(self._timeout_s))

    def _connect_failed(self, why: str) -> None:
        """Reject events until there is a connection, those that wait to be sent too."""
        if not self._away_is_logged:
            log.warning("Kafka unreachable, rejecting events", error=why)
            self._away_is_logged = True
        if self._away is None:
            self._away_since_s = time.monotonic()
        self._away = why
        self._reject_waiting()
        self._first_attempt_done.set()

    def _reject_waiting(self) -> None:
        for batch in self._batcher.clear():
            self.held_bytes -= batch.size_bytes
            batch.settle(_not_stored())

    async def unreachable(self) -> str | None:
        """See `Publisher`."""
        if self._session is None:
            return f"Kafka unreachable: {self._away or 'reconnecting'}"
        return await self._session.unavailable_because()

    async def stop(self) -> None:
        """See `Publisher`."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        self._flush()
        waiting = [self._outcome(batch) for batch in self._batcher.batches]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout_s)
        if self._reconnect_loop is not None:
            self._reconnect_loop.cancel()
            await asyncio.gather(self._reconnect_loop, return_exceptions=True)
        if self._session is not None:
            self._spawn(self._session.close(self._timeout_s))
            self._session = None
        self._away = "stopped"
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _outcome(self, batch: Batch) -> "asyncio.Future[RequestError | None]":
        outcome: asyncio.Future[RequestError | None] = self._loop.create_future()
        batch.callbacks.append(outcome.set_result)
        return outcome

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _paused() -> RequestError:
    return unavailable(Rejection.PAUSED, "the topics are getting more partitions; retry", _RETRY_AFTER_PAUSE_S)


def _not_stored() -> RequestError:
    return unavailable(Rejection.KAFKA_AWAY, "not acknowledged by Kafka in time; retry")
