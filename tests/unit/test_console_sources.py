"""The console's sources: rates, backlogs, polling, wording."""

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from eventpush.console import flow, kafka_progress, own_commands, wording
from eventpush.console.find import arguments
from eventpush.console.metric_samples import Scrape, parse, percentile_s, rate, rates_by
from eventpush.console.polled import Polled, Reading
from eventpush.console.progress import Backlog, Progress
from eventpush.console.stages import Process, StageReading, urls
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings

S = 1_000_000  # µs

BEFORE = parse(
    """# TYPE eventpush_ingress_events counter
eventpush_ingress_events_total 100.0
# TYPE eventpush_ingress_replies counter
eventpush_ingress_replies_total{status="200",reason=""} 100.0
eventpush_ingress_replies_total{status="400",reason="json"} 5.0
# TYPE eventpush_ingress_acknowledge_seconds histogram
eventpush_ingress_acknowledge_seconds_bucket{le="0.001"} 90.0
eventpush_ingress_acknowledge_seconds_bucket{le="0.01"} 100.0
eventpush_ingress_acknowledge_seconds_bucket{le="+Inf"} 100.0
""",
    10.0,
)
AFTER = parse(
    """# TYPE eventpush_ingress_events counter
eventpush_ingress_events_total 300.0
# TYPE eventpush_ingress_replies counter
eventpush_ingress_replies_total{status="200",reason=""} 300.0
eventpush_ingress_replies_total{status="400",reason="json"} 7.0
eventpush_ingress_replies_total{status="400",reason="length"} 2.0
eventpush_ingress_replies_total{status="503",reason="kafka"} 4.0
# TYPE eventpush_ingress_acknowledge_seconds histogram
eventpush_ingress_acknowledge_seconds_bucket{le="0.001"} 190.0
eventpush_ingress_acknowledge_seconds_bucket{le="0.01"} 298.0
eventpush_ingress_acknowledge_seconds_bucket{le="+Inf"} 300.0
""",
    12.0,
)


def test_rates() -> None:
    """A rate is the increase over the time between two answers, over all samples with the labels asked for."""
    assert rate(BEFORE, AFTER, "eventpush_ingress_events_total") == 100.0
    assert rate(BEFORE, AFTER, "eventpush_ingress_replies_total", status="400") == 2.0
    assert rates_by(BEFORE, AFTER, "eventpush_ingress_replies_total", "status") == {"200": 100, "400": 2, "503": 2}
    assert rate(BEFORE, AFTER, "no_such_metric") == 0.0
    assert AFTER.total("eventpush_ingress_replies_total", status="400") == 9.0


def test_a_restarted_process_has_no_negative_rate() -> None:
    """A counter that fell began again at zero."""
    restarted = Scrape(14.0, {"eventpush_ingress_events_total": {frozenset(): 50.0}})
    assert rate(AFTER, restarted, "eventpush_ingress_events_total") == 25.0


def test_percentiles_are_of_the_new_observations() -> None:
    """The bucket that holds the share; what was observed before does not count."""
    name = "eventpush_ingress_acknowledge_seconds"
    assert percentile_s(BEFORE, AFTER, name, 0.5) == 0.001
    assert percentile_s(BEFORE, AFTER, name, 0.99) == 0.01
    assert percentile_s(AFTER, AFTER, name, 0.99) is None


def progress(*backlogs: tuple[str, int, int | None]) -> Progress:
    listed = [
        Backlog(stage=stage, topic="t", partition=at, records=records, oldest_us=oldest_us)
        for at, (stage, records, oldest_us) in enumerate(backlogs)
    ]
    return Progress(backlogs=listed)


def test_what_could_not_be_read_in_time_waits_all_the_same() -> None:
    """A partition whose first record did not come in time counts with its records; only its age is unknown."""
    found = progress(("sink", 1, None), ("streams", 3, 90 * S))
    assert (found.waiting("sink"), found.waiting("streams")) == (1, 3)
    assert (found.oldest_us("sink"), found.oldest_us()) == (None, 90 * S)


async def test_only_markers_are_nothing_and_what_does_not_come_in_time_is_unknown() -> None:
    """Of three partitions one has a record, one only a transaction's marker, and one does not answer in time."""
    record, marker, slow = (TopicPartition("t", number) for number in range(3))

    class Consumer:
        """A broker with one record; a marker moves the position past itself."""

        def __init__(self) -> None:
            self.positions: dict[TopicPartition, int] = {}
            self.paused: set[TopicPartition] = set()

        def seek(self, tp: TopicPartition, offset: int) -> None:
            self.positions[tp] = offset

        def resume(self, *_: TopicPartition) -> None:
            self.paused.clear()

        def pause(self, *partitions: TopicPartition) -> None:
            self.paused.update(partitions)

        async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[object]]:
            await asyncio.sleep(timeout_ms / 1000)
            self.positions[marker] = 8
            return {record: [SimpleNamespace(timestamp=90_000)]} if record in partitions else {}

        async def position(self, tp: TopicPartition) -> int:
            return self.positions[tp]

    consumer: Any = Consumer()
    found, empty = await kafka_progress.first_times(consumer, dict.fromkeys((record, marker, slow), (7, 8)))
    assert (found, empty) == ({record: 90 * S}, {marker})
    assert consumer.paused == {record, marker, slow}


def stages(**problems: list[str]) -> dict[str, StageReading]:
    return {
        stage: StageReading(stage, [Process("http://x", BEFORE, AFTER, problems.get(stage, []))])
        for stage in ("ingress", "streams", "sink")
    }


def test_the_flow_shows_rates_and_states() -> None:
    """Each node has its rate; a stage whose oldest event waits too long is behind; a problem names its node."""
    waiting = Reading(progress(("streams", 5, 60 * S)))
    nodes = {n.name: n for n in flow.nodes(stages(sink=["clickhouse: gone"]), waiting, Reading(), 100 * S)}
    assert list(nodes) == ["ingress", "raw", "streams", "events", "sink", "clickhouse"]
    assert nodes["ingress"].rate == 100.0
    assert ("Refused (4xx)", "2.0/s") in nodes["ingress"].figures
    assert ("Answered within (99 %)", "10 ms") in nodes["ingress"].figures
    assert ("Waiting for streams", "5") in nodes["raw"].figures
    states = [node.state for node in nodes.values()]
    assert states == ["ok", "behind", "behind", "ok", "problem", "unknown"]
    assert flow.problems(nodes.values()) == ["Sink: clickhouse: gone"]


def test_kafka_away_is_one_problem() -> None:
    """Both topics show it, the list of problems names it once."""
    nodes = flow.nodes(stages(), Reading(problem="Kafka does not answer"), Reading(flow.Stored(1, 2, 0)), 0)
    assert [node.state for node in nodes] == ["ok", "problem", "ok", "problem", "ok", "ok"]
    assert flow.problems(nodes) == ["Raw topic: Kafka does not answer"]


def test_freshness() -> None:
    """The age of the oldest waiting event, and how far behind the moment is that the sink has proven."""
    found = flow.freshness(progress(("sink", 1, 95 * S)), flow.Stored(1, 2, 80 * S), 103 * S)
    assert (found.oldest_s, found.complete_through_us, found.behind_s) == (8.0, 80 * S, 23.0)
    assert flow.freshness(progress(), flow.Stored(1, 2, 80 * S), 101 * S).oldest_s is None


def test_without_a_proof_nothing_is_said_to_be_complete() -> None:
    """Nothing waits, and still: without a proof, or without ClickHouse, up to when all is stored is unknown."""
    for stored in (flow.Stored(1, 2, 0), None):
        found = flow.freshness(progress(), stored, 101 * S)
        assert (found.complete_through_us, found.behind_s) == (None, None)


async def test_a_source_is_asked_once_however_many_look() -> None:
    """Pages that look at the same time share one question; the next one is asked after the interval."""
    now, asked = 0.0, 0

    async def load() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    polled = Polled(load, 1.0, 5.0, lambda: now)
    assert [r.value for r in await asyncio.gather(*(polled.get() for _ in range(5)))] == [1] * 5
    assert (await polled.get()).value == 1
    now = 1.5
    assert (await polled.get()).value == 2


async def test_a_source_that_is_away_says_so_and_recovers() -> None:
    """A problem replaces the value, and the next good answer replaces the problem; a hanging source is a problem."""
    outcomes: list[object] = ["old", OperatorError("Kafka is away", ""), asyncio.Event(), "new"]

    async def load() -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OperatorError):
            raise outcome
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
        return outcome

    polled = Polled(load, 0.0, 0.05, lambda: 0.0)
    found = [await polled.get() for _ in range(4)]
    assert [(r.value, r.problem) for r in found] == [
        ("old", None), (None, "Kafka is away"), (None, "no answer within 0.05 s"), ("new", None)
    ]  # fmt: skip


async def test_a_slow_source_does_not_hold_a_page() -> None:
    """A page gets the last answer while a new one is on its way."""
    release = asyncio.Event()

    async def load() -> int:
        await release.wait()
        return 1

    polled = Polled(load, 0.0, 5.0)
    assert (await polled.get(wait_s=0)) == Reading(None, None, loading=True)
    release.set()
    assert (await polled.get()).value == 1


def test_addresses_of_the_stages() -> None:
    """The ports of this machine, or exactly the processes that are set."""
    assert urls(Settings(sink_metrics_port=7))["sink"] == ["http://127.0.0.1:7"]
    set_ = "ingress=http://a:1,ingress=http://b:1/,sink=https://c"
    assert urls(Settings(console_stages=set_)) == {
        "ingress": ["http://a:1", "http://b:1"], "streams": [], "sink": ["https://c"]
    }  # fmt: skip


def test_what_find_asks() -> None:
    """A word of 15 digits is an IMEI; anything else is an identifier, never an option of the command."""
    assert arguments("350612075195931", "T", 5) == [
        "trace",
        "--json",
        "--imei=350612075195931",
        "--around=T",
        "--within=5",
    ]
    assert arguments("--help", "", 5) == ["trace", "--json", "--", "--help"]


async def test_the_error_of_a_command_is_shown_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `eventpush` says on standard error becomes the page's message, without a traceback."""
    with pytest.raises(OperatorError, match=r"^`eventpush trace`: 'x' is neither a receipt nor an event_id"):
        await own_commands.run_json(list, "trace", "--json", "--", "x")
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(OperatorError, match="ended without an answer"):
        await own_commands.run_json(list, "trace")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.44, "0.4 s"),
        (12, "12 s"),
        (192, "3 min 12 s"),
        (7_500, "2 h 5 min"),
        (349_200, "4 d 1 h"),
        (3_600, "1 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """In the two largest units."""
    assert wording.duration(seconds) == text


def test_numbers() -> None:
    """Thousands are separated; small rates keep a digit; what is not known is a dash."""
    assert (wording.count(1_234_567), wording.count(None)) == ("1,234,567", "–")
    assert [wording.per_second(r) for r in (None, 0, 0.44, 9.96, 1_234)] == ["–", "0/s", "0.4/s", "10/s", "1,234/s"]
    assert wording.moment(0) == "1970-01-01 00:00:00 UTC"
