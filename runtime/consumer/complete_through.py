"""Up to which arrival each partition is done: what the freshness objective is measured by."""

import time
from collections.abc import Collection, Mapping

from faust.types import TP

from runtime.platform import metrics


class CompleteThrough:
    """Keeps a gauge: now while nothing waits in a partition, otherwise the time of the last record processed.

    A partition without either is not shown: its worker has just taken it over, and has a backlog. What a worker has
    lost is removed, as the new owner shows it.
    """

    def __init__(self, gauge: metrics.Gauge) -> None:
        self._gauge = gauge
        self._done_s: dict[TP, float] = {}

    def update(self, owned: Collection[TP], working: Collection[TP], processed_ms: Mapping[TP, int]) -> None:
        """Take the owned partitions, those with records or a batch to process, and the last record's time of each."""
        for tp in set(self._done_s) - set(owned):
            del self._done_s[tp]
            self._gauge.metric.remove(tp.topic, str(tp.partition))
        for tp in owned:
            done_s = processed_ms[tp] / 1000 if tp in processed_ms else 0.0
            if tp not in working:
                done_s = time.time()
            if done_s := max(done_s, self._done_s.get(tp, 0.0)):
                self._done_s[tp] = done_s
                self._gauge.metric.labels(tp.topic, str(tp.partition)).set(done_s)
