"""Metrics of responses and of stored events, passed on to prometheus_client once for each iteration of the loop.

A counter of prometheus_client takes a lock, or writes to a file that other processes read. Done for every response,
that costs as much as parsing the event.
"""

import asyncio
from collections import Counter
from functools import lru_cache
from http import HTTPStatus

import prometheus_client

from ingress.errors import STATUS, Rejection
from ingress.http.responses import Response
from runtime.platform import metrics


class MetricsBuffer:
    """Counts on a running loop; the metrics show it from the next iteration on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._flush_is_due = False
        self._responses: Counter[str] = Counter()
        self._acknowledged_s: list[float] = []
        self._batches: list[int] = []
        self._stored_bytes = 0

    def response(self, response: Response) -> None:
        """Count a response by its reason."""
        if not self._flush_is_due:
            self._flush_soon()
        self._responses[response.reason] += 1

    def acknowledged(self, seconds: float) -> None:
        """Observe the time from a request's headers to the acknowledgement of its events."""
        if not self._flush_is_due:
            self._flush_soon()
        self._acknowledged_s.append(seconds)

    def stored(self, events: int, size_bytes: int) -> None:
        """Count a batch that Kafka has acknowledged."""
        if not self._flush_is_due:
            self._flush_soon()
        self._batches.append(events)
        self._stored_bytes += size_bytes

    def _flush_soon(self) -> None:
        self._flush_is_due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        responses, self._responses = self._responses, Counter()
        for reason, number in responses.items():
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


@lru_cache  # bounded by the table of rejections
def _counter(reason: str) -> prometheus_client.Counter:
    status = STATUS[Rejection(reason)][0] if reason else HTTPStatus.OK
    return metrics.INGRESS_REPLIES.metric.labels(str(status.value), reason)
