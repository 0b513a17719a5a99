"""Metrics of a process in Prometheus' text format, and rates between two of its answers. Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    """The samples of one answer, by name and labels; `at_s` is a monotonic time in seconds."""

    at_s: float
    samples: Mapping[str, Mapping[_Labels, float]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that carry these labels; 0 without any."""
        wanted = frozenset(labels.items())
        return sum(value for found, value in self.samples.get(name, {}).items() if wanted <= found)


def parse(text: str, at_s: float) -> Scrape:
    """Read an answer; raise ValueError if it is not in Prometheus' text format."""
    samples: defaultdict[str, dict[_Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name][frozenset(sample.labels.items())] = sample.value
    return Scrape(at_s, samples)


def rate(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    """Return the increase of a counter per second; a counter that fell was reset, and has risen from zero since."""
    return _increase(before, after, name, frozenset(labels.items())) / max(after.at_s - before.at_s, 1e-3)


def rates_by(before: Scrape, after: Scrape, name: str, label: str) -> dict[str, float]:
    """Return the rates of a counter by the values of one label."""
    values = sorted({dict(labels).get(label, "") for labels in after.samples.get(name, {})})
    return {value: rate(before, after, name, **{label: value}) for value in values}


def percentile_s(before: Scrape, after: Scrape, histogram: str, share: float) -> float | None:
    """Return the upper bound of the bucket that holds this share of the new observations; None without any."""
    bounds: defaultdict[float, float] = defaultdict(float)
    for labels in after.samples.get(f"{histogram}_bucket", {}):
        bound = dict(labels)["le"]
        bounds[float(bound)] += _increase(before, after, f"{histogram}_bucket", labels)
    count = bounds.get(math.inf, 0.0)
    if count <= 0:
        return None
    return next(bound for bound in sorted(bounds) if bounds[bound] >= share * count)


def _increase(before: Scrape, after: Scrape, name: str, wanted: _Labels) -> float:
    earlier = before.samples.get(name, {})
    increase = 0.0
    for labels, value in after.samples.get(name, {}).items():
        if wanted <= labels:
            was = earlier.get(labels, 0.0)
            increase += value - was if value >= was else value
    return increase
