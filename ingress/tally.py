"""The metrics of answers, told to prometheus_client once for all of a turn of the loop.

Its counters take a lock, or write a file that other processes read, each time: done for every answer, that costs as
much as parsing the event.
"""

import asyncio
from collections import Counter
from functools import lru_cache
from http import HTTPStatus

import prometheus_client

from ingress.refusals import STATUS, Reason
from ingress.replies import Reply
from runtime import metrics


class Tally:
    """Counts on a running loop; what a turn of it has counted can be seen after the next one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._replies: Counter[str] = Counter()
        self._acknowledged_s: list[float] = []

    def reply(self, reply: Reply) -> None:
        """An answer that is given."""
        if not self._replies:
            self._loop.call_soon(self._tell)
        self._replies[reply.reason] += 1

    def acknowledged(self, seconds: float) -> None:
        """A request that will be answered 200, so long after its headers."""
        self._acknowledged_s.append(seconds)

    def _tell(self) -> None:
        replies, self._replies = self._replies, Counter()
        for reason, number in replies.items():
            _counter(reason).inc(number)
        if self._acknowledged_s:
            acknowledged_s, self._acknowledged_s = self._acknowledged_s, []
            metrics.INGRESS_ACK_S.metric.observe_all(acknowledged_s)


@lru_cache  # bounded by the table of reasons
def _counter(reason: str) -> prometheus_client.Counter:
    status = STATUS[Reason(reason)][0] if reason else HTTPStatus.OK
    return metrics.INGRESS_REPLIES.metric.labels(str(status.value), reason)
