"""The registry of metrics: the name, kind, labels and meaning of each, for every process.

A metric is declared here and nowhere else. It comes into being in a process when it is first used there, so a
process's `/metrics` shows its own. `table()` gives them all as rows for the documentation.

Kinds: `Count` only grows, `Level` is a value now, `Spread` counts observations in buckets.
"""

from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

_declared: list["_Metric"] = []


@dataclass(frozen=True)
class _Metric:
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _declared.append(self)


class Count(_Metric):
    """A number of things that happened; Prometheus shows it as `<name>_total`."""

    @cached_property
    def metric(self) -> Counter:
        """The counter, made and registered on first use."""
        return Counter(self.name, self.help, self.labels, registry=REGISTRY)


class Level(_Metric):
    """A value now; over several processes, the sum of the living ones."""

    @cached_property
    def metric(self) -> Gauge:
        """The gauge, made and registered on first use."""
        return Gauge(self.name, self.help, self.labels, registry=REGISTRY, multiprocess_mode="livesum")


@dataclass(frozen=True)
class Spread(_Metric):
    """Observations in buckets; the unit is in the name."""

    buckets: Sequence[float] = ()

    @cached_property
    def metric(self) -> "Buckets":
        """The histogram, made and registered on first use."""
        return Buckets(self.name, self.help, self.labels, registry=REGISTRY, buckets=self.buckets)


class Buckets(Histogram):
    """A histogram that takes many observations at the cost of a few."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """The same as `observe` with each of them."""
        self._sum.inc(sum(amounts))
        for bucket, number in Counted(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[bucket].inc(number)


_ACK_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2)
_INSERT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)

# --- ingress -----------------------------------------------------------------------------------------------------
INGRESS_REPLIES = Count("eventpush_ingress_replies", "Answers by status and reason.", ("status", "reason"))
INGRESS_EVENTS = Count("eventpush_ingress_events", "Events acknowledged with 200: Kafka has them.")
INGRESS_BYTES = Count("eventpush_ingress_bytes", "Bytes of the acknowledged events.")
INGRESS_TOKEN_USES = Count("eventpush_ingress_token_uses", "Requests by the name of their bearer token.", ("name",))
INGRESS_ACK_S = Spread("eventpush_ingress_acknowledge_seconds", "From the request's headers to its 200.", (), _ACK_S)
INGRESS_BATCH_EVENTS = Spread(
    "eventpush_ingress_batch_events", "Events in one write to one partition of Kafka.", (), _EVENTS
)
INGRESS_INFLIGHT_REQUESTS = Level("eventpush_ingress_inflight_requests", "Requests being worked on.")
INGRESS_INFLIGHT_BYTES = Level("eventpush_ingress_inflight_bytes", "Bytes held until Kafka has acknowledged them.")
INGRESS_CONNECTIONS = Level("eventpush_ingress_connections", "Open connections.")
INGRESS_KAFKA_UP = Level("eventpush_ingress_kafka_up", "Processes that are connected to Kafka.")
INGRESS_PRODUCERS = Count("eventpush_ingress_kafka_connects", "Times that a connection to Kafka was made anew.")

# --- streams ------------------------------------------------------------------------------------------------------
STREAMS_EVENTS = Count("eventpush_streams_events", "Raw events by what came of them.", ("outcome",))
STREAMS_BATCH_S = Spread("eventpush_streams_batch_seconds", "One batch, judged and committed.", (), _INSERT_S)
STREAMS_BATCH_EVENTS = Spread("eventpush_streams_batch_events", "Raw events in one transaction.", (), _EVENTS)
STREAMS_WINDOW_IDENTITIES = Level("eventpush_streams_window_identities", "Identities that the window holds.")
STREAMS_LAG = Level(
    "eventpush_streams_lag_records", "Raw events that are in Kafka and not yet read.", ("topic", "partition")
)

# --- sink --------------------------------------------------------------------------------------------------------
SINK_ROWS = Count("eventpush_sink_rows", "Rows that ClickHouse acknowledged.", ("table",))
SINK_INSERT_S = Spread("eventpush_sink_insert_seconds", "One insert, to ClickHouse's answer.", ("table",), _INSERT_S)
SINK_RETRIES = Count("eventpush_sink_retries", "Inserts that failed and are tried again.", ("table",))
SINK_REFUSED = Count("eventpush_sink_refused", "Rows that ClickHouse refused, now dead letters.", ("table",))
SINK_LAG = Level("eventpush_sink_lag_records", "Records that are in Kafka and not yet read.", ("topic", "partition"))

# --- account: shown by `eventpush account --metrics`, not by a process --------------------------------------------
ACCOUNT_EVENTS = Level(
    "eventpush_account_events", "Accepted events by type and what came of them, as far as judged.", ("event", "outcome")
)
ACCOUNT_IN_FLIGHT = Level("eventpush_account_in_flight_events", "Events that a stage has yet to do.", ("stage",))
ACCOUNT_REMAINDER = Level(
    "eventpush_account_remainder_events",
    "Events of a range of raw offsets whose account does not add up.",
    ("partition", "first", "next", "why"),
)


def table() -> list[tuple[str, str, str, str]]:
    """One row a metric: its name as Prometheus shows it, kind, labels, meaning."""
    kinds: dict[type[_Metric], tuple[str, str]] = {
        Count: ("counter", "_total"),
        Level: ("gauge", ""),
        Spread: ("histogram", ""),
    }
    return [
        (m.name + kinds[type(m)][1], kinds[type(m)][0], ", ".join(m.labels), m.help)
        for m in sorted(_declared, key=lambda m: m.name)
    ]
