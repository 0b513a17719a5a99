"""A gauge by topic and partition that shows what this worker owns, and nothing that it has lost."""

from collections.abc import Mapping

from faust.types import TP

from runtime.platform import metrics


class PartitionGauge:
    """Shows one value for each partition.

    A lost partition has a new owner, which shows it. Its last value here would count twice in a sum over the workers:
    in an alert, and in the lag that scales them.
    """

    def __init__(self, gauge: metrics.Gauge) -> None:
        self._gauge = gauge
        self._shown: set[TP] = set()

    def show(self, values: Mapping[TP, float]) -> None:
        """Show these partitions, and remove all others."""
        for tp in self._shown - values.keys():
            self._gauge.metric.remove(tp.topic, str(tp.partition))
        for tp, value in values.items():
            self._gauge.metric.labels(tp.topic, str(tp.partition)).set(value)
        self._shown = set(values)
