"""The flow as the overview shows it: one node a stage or store, in the order that an event passes them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from eventpush.console import wording
from eventpush.console.metric_samples import Scrape, percentile_s, rate
from eventpush.console.polled import Reading
from eventpush.console.progress import Progress
from eventpush.console.stages import StageReading

OK, BEHIND, PROBLEM, UNKNOWN = "ok", "behind", "problem", "unknown"
STATE_TEXT = {OK: "healthy", BEHIND: "behind", PROBLEM: "problem", UNKNOWN: "not known yet"}
_BEHIND_S = 10.0  # an event that waits longer makes its stage "behind"


@dataclass(frozen=True)
class Node:
    """One stage or store: its state in a word, its rate, and its figures as label and value."""

    name: str
    title: str
    state: str
    rate: float | None
    rate_label: str
    figures: list[tuple[str, str]]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """What ClickHouse holds."""

    events: int
    dead_letters: int
    complete_through_us: int  # everything accepted before is stored; 0 while nothing is proven


@dataclass(frozen=True)
class Freshness:
    """How old the oldest waiting event is, and up to when everything is stored; None where it is not known."""

    oldest_us: int | None
    oldest_s: float | None
    complete_through_us: int | None
    behind_s: float | None


def nodes(
    stages: dict[str, StageReading], progress: Reading[Progress], stored: Reading[Stored], now_us: int
) -> list[Node]:
    """Return the flow: ingress, raw topic, streams, events topic, sink, ClickHouse."""
    ingress, streams, sink = (stages[name] for name in ("ingress", "streams", "sink"))
    written = _rate(sink, "eventpush_sink_rows_total", table="events")
    return [
        _ingress(ingress),
        _topic("raw", "Raw topic", "streams", _rate(ingress, "eventpush_ingress_events_total"), progress, now_us),
        _streams(streams, progress, now_us),
        _topic("events", "Events topic", "sink", _outcome(streams, "unique"), progress, now_us),
        _sink(sink, progress, now_us),
        _clickhouse(written, stored),
    ]


def freshness(progress: Progress | None, stored: Stored | None, now_us: int) -> Freshness:
    """Return the oldest waiting event and the moment up to which all is stored."""
    oldest_us = progress.oldest_us() if progress else None
    through_us = (stored.complete_through_us or None) if stored else None
    return Freshness(oldest_us, _since_s(oldest_us, now_us), through_us, _since_s(through_us, now_us))


def problems(flow: Iterable[Node]) -> list[str]:
    """Return every problem once, in the order of the flow, each with the node's title."""
    found: dict[str, str] = {}
    for node in flow:
        for problem in node.problems:
            found.setdefault(problem, node.title)
    return [f"{title}: {problem}" for problem, title in found.items()]


def _ingress(reading: StageReading) -> Node:
    refused = _sum(
        sum(_replies(before, after, status) for status in range(400, 500)) for before, after in reading.pairs
    )
    failed = _sum(sum(_replies(before, after, status) for status in range(500, 600)) for before, after in reading.pairs)
    name = "eventpush_ingress_acknowledge_seconds"
    slowest = [percentile_s(before, after, name, 0.99) for before, after in reading.pairs]
    known = [found for found in slowest if found is not None]
    return Node(
        "ingress",
        "Ingress",
        _state(reading),
        _rate(reading, "eventpush_ingress_events_total"),
        "events accepted",
        [
            ("Refused (4xx)", wording.per_second(refused)),
            ("Failed (5xx)", wording.per_second(failed)),
            ("Answered within (99 %)", wording.milliseconds(max(known)) if known else wording.UNKNOWN),
            ("Connections", wording.count(_gauge(reading, "eventpush_ingress_connections"))),
        ],
        reading.problems,
    )


def _topic(name: str, title: str, reader: str, written: float | None, progress: Reading[Progress], now_us: int) -> Node:
    if progress.value is None:
        state = UNKNOWN if progress.problem is None else PROBLEM
        found = [progress.problem] if progress.problem else []
        return Node(name, title, state, written, "written", [("Waiting", wording.UNKNOWN)], found)
    age_s = _age_s(progress.value, reader, now_us)
    return Node(
        name,
        title,
        BEHIND if age_s is not None and age_s > _BEHIND_S else OK,
        written,
        "written",
        [
            (f"Waiting for {reader}", wording.count(progress.value.waiting(reader))),
            ("Oldest waits for", "nothing waits" if age_s is None else wording.duration(age_s)),
        ],
    )


def _streams(reading: StageReading, progress: Reading[Progress], now_us: int) -> Node:
    return Node(
        "streams",
        "Streams",
        _state(reading, progress, "streams", now_us),
        _rate(reading, "eventpush_streams_events_total"),
        "processed",
        [
            ("Unique", wording.per_second(_outcome(reading, "unique"))),
            ("Duplicates", wording.per_second(_outcome(reading, "duplicate"))),
            ("Dead letters", wording.per_second(_outcome(reading, "dead_lettered"))),
            ("In the window", wording.count(_gauge(reading, "eventpush_streams_window_identities"))),
        ],
        reading.problems,
    )


def _sink(reading: StageReading, progress: Reading[Progress], now_us: int) -> Node:
    return Node(
        "sink",
        "Sink",
        _state(reading, progress, "sink", now_us),
        _rate(reading, "eventpush_sink_rows_total"),
        "rows stored",
        [
            ("Events", wording.per_second(_rate(reading, "eventpush_sink_rows_total", table="events"))),
            ("Dead letters", wording.per_second(_rate(reading, "eventpush_sink_rows_total", table="dead_letters"))),
            ("Retries", wording.per_second(_rate(reading, "eventpush_sink_retries_total"))),
        ],
        reading.problems,
    )


def _clickhouse(written: float | None, stored: Reading[Stored]) -> Node:
    if stored.value is None:
        state = UNKNOWN if stored.problem is None else PROBLEM
        return Node(
            "clickhouse", "ClickHouse", state, written, "stored", [], [stored.problem] if stored.problem else []
        )
    figures = [
        ("Events", wording.count(stored.value.events)),
        ("Dead letters", wording.count(stored.value.dead_letters)),
    ]
    return Node("clickhouse", "ClickHouse", OK, written, "stored", figures)


def _state(reading: StageReading, progress: Reading[Progress] | None = None, stage: str = "", now_us: int = 0) -> str:
    if reading.problems:
        return PROBLEM
    if progress is not None and progress.value is not None:
        age_s = _age_s(progress.value, stage, now_us)
        if age_s is not None and age_s > _BEHIND_S:
            return BEHIND
    return OK if all(process.now for process in reading.processes) else UNKNOWN


def _age_s(progress: Progress, stage: str, now_us: int) -> float | None:
    return _since_s(progress.oldest_us(stage), now_us)


def _since_s(us: int | None, now_us: int) -> float | None:
    return None if us is None else max(0.0, (now_us - us) / 1e6)


def _outcome(reading: StageReading, outcome: str) -> float | None:
    return _rate(reading, "eventpush_streams_events_total", outcome=outcome)


def _rate(reading: StageReading, name: str, **labels: str) -> float | None:
    return _sum(rate(before, after, name, **labels) for before, after in reading.pairs)


def _replies(before: Scrape, after: Scrape, status: int) -> float:
    return rate(before, after, "eventpush_ingress_replies_total", status=str(status))


def _gauge(reading: StageReading, name: str) -> float | None:
    return _sum(process.now.total(name) for process in reading.processes if process.now)


def _sum(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) if found else None
