"""The registry of metrics: the name, kind, labels and meaning of each, for every process.

A metric is declared here and nowhere else. It comes into being in a process when it is first used there, so a
process's `/metrics` shows its own. `table()` gives them all as rows for the documentation.

Kinds: a `Counter` only grows, a `Gauge` is the current value, a `Histogram` counts observations in buckets.
"""

import collections
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import prometheus_client
from prometheus_client import REGISTRY

_declared: list["_Metric"] = []


@dataclass(frozen=True)
class _Metric:
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _declared.append(self)


class Counter(_Metric):
    """A number of things that happened; Prometheus shows it as `<name>_total`."""

    @cached_property
    def metric(self) -> prometheus_client.Counter:
        """The counter, made and registered on first use."""
        return prometheus_client.Counter(self.name, self.help, self.labels, registry=REGISTRY)


class Gauge(_Metric):
    """A value now; over several processes, the sum of the living ones."""

    @cached_property
    def metric(self) -> prometheus_client.Gauge:
        """The gauge, made and registered on first use."""
        return prometheus_client.Gauge(
            self.name, self.help, self.labels, registry=REGISTRY, multiprocess_mode="livesum"
        )


@dataclass(frozen=True)
class Histogram(_Metric):
    """Observations in buckets; the unit is in the name."""

    buckets: Sequence[float] = ()

    @cached_property
    def metric(self) -> "BulkHistogram":
        """The histogram, made and registered on first use."""
        return BulkHistogram(self.name, self.help, self.labels, registry=REGISTRY, buckets=self.buckets)


class BulkHistogram(prometheus_client.Histogram):
    """A histogram that takes many observations at the cost of a few."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe each of the amounts."""
        self._sum.inc(sum(amounts))
        for bucket, number in collections.Counter(
            bisect_left(self._upper_bounds, amount) for amount in amounts
        ).items():
            self._buckets[bucket].inc(number)


_ACK_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2)
_INSERT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)

# --- ingress -----------------------------------------------------------------------------------------------------
INGRESS_REPLIES = Counter("eventpush_ingress_replies", "Answers by status and reason.", ("status", "reason"))
INGRESS_EVENTS = Counter("eventpush_ingress_events", "Events acknowledged with 200: Kafka has them.")
INGRESS_BYTES = Counter("eventpush_ingress_bytes", "Bytes of the acknowledged events.")
INGRESS_TOKEN_USES = Counter("eventpush_ingress_token_uses", "Requests by the name of their bearer token.", ("name",))
INGRESS_REFUSALS = Counter(
    "eventpush_ingress_refusals", "Requests of a known sender that were not answered with 200.", ("sender", "reason")
)
INGRESS_ACK_S = Histogram("eventpush_ingress_acknowledge_seconds", "From the request's headers to its 200.", (), _ACK_S)
INGRESS_BATCH_EVENTS = Histogram(
    "eventpush_ingress_batch_events", "Events in one write to one partition of Kafka.", (), _EVENTS
)
INGRESS_INFLIGHT_REQUESTS = Gauge("eventpush_ingress_inflight_requests", "Requests being worked on.")
INGRESS_INFLIGHT_BYTES = Gauge("eventpush_ingress_inflight_bytes", "Bytes held until Kafka has acknowledged them.")
INGRESS_CONNECTIONS = Gauge("eventpush_ingress_connections", "Open connections.")
INGRESS_KAFKA_UP = Gauge("eventpush_ingress_kafka_up", "Processes that are connected to Kafka.")
INGRESS_PAUSED = Gauge(
    "eventpush_ingress_paused", "Processes whose last event was refused because the topics are getting more partitions."
)
INGRESS_PRODUCERS = Counter(
    "eventpush_ingress_kafka_connects",
    "Connections made to Kafka, reconnections included.",
)

# --- streams ------------------------------------------------------------------------------------------------------
STREAMS_EVENTS = Counter("eventpush_streams_events", "Raw events by outcome.", ("outcome",))
STREAMS_DEAD_LETTERS = Counter(
    "eventpush_streams_dead_letters",
    "Dead letters by reason code and category; one with several reasons counts in each.",
    ("reason", "category"),
)
STREAMS_WARNINGS = Counter("eventpush_streams_warnings", "Published events by the code of a warning.", ("warning",))
STREAMS_BATCH_S = Histogram("eventpush_streams_batch_seconds", "Time to process and commit one batch.", (), _INSERT_S)
STREAMS_TRANSACTION_S = Histogram(
    "eventpush_streams_transaction_seconds", "One Kafka transaction, from its beginning to its commit.", (), _INSERT_S
)
STREAMS_BATCH_EVENTS = Histogram("eventpush_streams_batch_events", "Raw events in one transaction.", (), _EVENTS)
STREAMS_WINDOW_IDENTITIES = Gauge("eventpush_streams_window_identities", "Identities that the window holds.")
STREAMS_LAG = Gauge(
    "eventpush_streams_lag_records", "Raw events that are in Kafka and not yet read.", ("topic", "partition")
)

STREAMS_COMPLETE_THROUGH = Gauge(
    "eventpush_streams_complete_through_seconds",
    "Arrival up to which all raw events of a partition are processed, in seconds since the epoch.",
    ("topic", "partition"),
)

# --- sink --------------------------------------------------------------------------------------------------------
SINK_ROWS = Counter("eventpush_sink_rows", "Rows that ClickHouse acknowledged.", ("table",))
SINK_INSERT_S = Histogram("eventpush_sink_insert_seconds", "One insert, to ClickHouse's answer.", ("table",), _INSERT_S)
SINK_RETRIES = Counter("eventpush_sink_retries", "Inserts that failed and are tried again.", ("table",))
SINK_REFUSED = Counter("eventpush_sink_refused", "Rows that ClickHouse refused, now dead letters.", ("table",))
SINK_LAG = Gauge("eventpush_sink_lag_records", "Records that are in Kafka and not yet read.", ("topic", "partition"))

SINK_COMPLETE_THROUGH = Gauge(
    "eventpush_sink_complete_through_seconds",
    "Arrival up to which all records of a partition are stored, in seconds since the epoch.",
    ("topic", "partition"),
)

COMPLETE_THROUGH = Gauge(
    "eventpush_complete_through_timestamp_seconds",
    "Every event of a partition of the raw topic that was accepted before is stored, proven by offsets, in seconds "
    "since the epoch. Shown by the sink that has partition 0 of the events.",
    ("partition",),
)

# --- event stream -------------------------------------------------------------------------------------------------
SSE_CLIENTS = Gauge("eventpush_sse_clients", "Connected clients of the event stream.")
SSE_EVENTS = Counter("eventpush_sse_events", "Events sent to clients of the event stream.")
SSE_DISCONNECTS = Counter(
    "eventpush_sse_disconnects",
    "Clients of the event stream that were disconnected: they took nothing (slow), their token ended (token), Kafka "
    "had deleted what they were to get next (expired), Kafka did not answer (kafka), or the topic got more partitions.",
    ("reason",),
)

# --- account: shown by `eventpush account --metrics`, not by a process --------------------------------------------
ACCOUNT_EVENTS = Gauge(
    "eventpush_account_events", "Accepted events by type and outcome, as far as processed.", ("event", "outcome")
)
ACCOUNT_IN_FLIGHT = Gauge("eventpush_account_in_flight_events", "Events that a stage has yet to do.", ("stage",))
ACCOUNT_REMAINDER = Gauge(
    "eventpush_account_remainder_events",
    "Events of a range of raw offsets whose account does not add up.",
    ("partition", "first", "next", "why"),
)


def table() -> list[tuple[str, str, str, str]]:
    """Return one row a metric: its name as Prometheus shows it, kind, labels, meaning."""
    kinds: dict[type[_Metric], tuple[str, str]] = {
        Counter: ("counter", "_total"),
        Gauge: ("gauge", ""),
        Histogram: ("histogram", ""),
    }
    return [
        (m.name + kinds[type(m)][1], kinds[type(m)][0], ", ".join(m.labels), m.help)
        for m in sorted(_declared, key=lambda m: m.name)
    ]
