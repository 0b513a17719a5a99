"""The metrics of answers and of what is stored, told to prometheus_client once for all of a turn of the loop.

Its counters take a lock, or write a file that other processes read, each time: done for every answer, that costs as
much as parsing the event.
"""

import asyncio
from collections import Counter
from functools import lru_cache
from http import HTTPStatus

import prometheus_client

from ingress.errors import STATUS, Reason
from ingress.http.responses import Response
from runtime.platform import metrics


class MetricsBuffer:
    """Counts on a running loop; what a turn of it has counted can be seen after the next one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = False  # to be told after this turn
        self._replies: Counter[str] = Counter()
        self._acknowledged_s: list[float] = []
        self._batches: list[int] = []
        self._stored_bytes = 0

    def reply(self, reply: Response) -> None:
        """An answer that is given."""
        if not self._due:
            self._tell_soon()
        self._replies[reply.reason] += 1

    def acknowledged(self, seconds: float) -> None:
        """A request that will be answered 200, so long after its headers."""
        self._acknowledged_s.append(seconds)

    def stored(self, events: int, size_bytes: int) -> None:
        """A batch of so many events and bytes that Kafka has acknowledged."""
        if not self._due:
            self._tell_soon()
        self._batches.append(events)
        self._stored_bytes += size_bytes

    def _tell_soon(self) -> None:
        self._due = True
        self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._due = False
        replies, self._replies = self._replies, Counter()
        for reason, number in replies.items():
            _counter(reason).inc(number)
        if self._acknowledged_s:
            acknowledged_s, self._acknowledged_s = self._acknowledged_s, []
            metrics.INGRESS_ACK_S.metric.observe_all(acknowledged_s)
        if self._batches:
            batches, self._batches = self._batches, []
            stored_bytes, self._stored_bytes = self._stored_bytes, 0
            metrics.INGRESS_BATCH_EVENTS.metric.observe_all(batches)
            metrics.INGRESS_EVENTS.metric.inc(sum(batches))
            metrics.INGRESS_BYTES.metric.inc(stored_bytes)


@lru_cache  # bounded by the table of reasons
def _counter(reason: str) -> prometheus_client.Counter:
    status = STATUS[Reason(reason)][0] if reason else HTTPStatus.OK
    return metrics.INGRESS_REPLIES.metric.labels(str(status.value), reason)
