"""Up to which arrival each partition is done: what the freshness objective is measured by."""

import time
from collections.abc import Collection, Mapping

from faust.types import TP

from runtime.consumer.partition_gauge import PartitionGauge
from runtime.platform import metrics


class CompleteThrough:
    """Keeps a gauge: now while nothing waits in a partition, otherwise the time of the last record processed.

    A partition without either is not shown: its worker has just taken it over, and has a backlog.
    """

    def __init__(self, gauge: metrics.Gauge) -> None:
        self._gauge = PartitionGauge(gauge)
        self._done_s: dict[TP, float] = {}

    def update(self, owned: Collection[TP], working: Collection[TP], processed_ms: Mapping[TP, int]) -> None:
        """Take the owned partitions, those with records or a batch to process, and the last record's time of each."""
        now_s = time.time()
        done_s = {tp: processed_ms.get(tp, 0) / 1000 if tp in working else now_s for tp in owned}
        latest_s = {tp: max(at_s, self._done_s.get(tp, 0.0)) for tp, at_s in done_s.items()}
        self._done_s = {tp: at_s for tp, at_s in latest_s.items() if at_s}
        self._gauge.show(self._done_s)
