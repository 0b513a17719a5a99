"""A trace says what became of a raw event, from whatever facts there are."""

import msgspec
import pytest
from click.testing import CliRunner

from eventpush.cli import cli
from eventpush.tracing.facts import Arrival, DeadLetterRow, EventRow, Facts, Position
from eventpush.tracing.identification import identify
from eventpush.tracing.text import lines
from eventpush.tracing.timeline import timeline
from eventpush.tracing.wanted import Wanted, of_identifier
from runtime.platform.errors import OperatorError
from schemas import topics
from schemas.dead_letter import Violation
from schemas.sent_schema import example
from schemas.validation import ClockLimits
from tests.unit.cli_support import logging_as_it_was  # noqa: F401 - a fixture

CLOCK = ClockLimits.of_seconds(300, 86_400)
ARRIVED_US = 1_782_612_840_000_000
ID = "0f6f5d3e-8a55-4b7a-9f0e-2f3c1f0a7d11"
RECEIPT = "3f9a0c51d2e4-1f"
HERE, EARLIER = Position(topics.RAW, 2, 40), Position(topics.RAW, 2, 7)

ARRIVAL = Arrival(position=HERE, received_us=ARRIVED_US, receipt_id=RECEIPT, sender="acme", payload=b"x" * 300)


def event_row(raw: Position) -> EventRow:
    return EventRow(
        event_id=ID, event="sos", imei="350612075195931", receipt_id=RECEIPT, received_us=ARRIVED_US,
        inserted_us=ARRIVED_US + 250_000, vehicle=None, fleet=None, driver=None, raw=raw,
    )  # fmt: skip


def letter_row(raw: Position, conflict: str | None = None) -> DeadLetterRow:
    return DeadLetterRow(
        dead_letter_id=ID, stage="streams", event="sos", imei="350612075195931", receipt_id=RECEIPT,
        received_us=ARRIVED_US, inserted_us=ARRIVED_US + 250_000, conflict_with_event_id=conflict, raw=raw,
        reasons=[Violation("bad_format", "Device_Time", '"yesterday"', "YYYY-MM-DD…"),
                 Violation("missing", "IMEI", "nothing", "15 digits")],
    )  # fmt: skip


CASES = {
    "event": Facts(raw=HERE, arrival=ARRIVAL, event=event_row(HERE), streams_behind=0),
    "duplicate of event": Facts(raw=HERE, arrival=ARRIVAL, event=event_row(EARLIER), streams_behind=0),
    "duplicate of dead letter": Facts(raw=HERE, arrival=ARRIVAL, dead_letter=letter_row(EARLIER), streams_behind=0),
    "dead_letter": Facts(raw=HERE, arrival=ARRIVAL, dead_letter=letter_row(HERE)),
    "conflict": Facts(
        raw=HERE, arrival=ARRIVAL, dead_letter=letter_row(HERE, conflict=ID), event=event_row(EARLIER), streams_behind=0
    ),
    "waiting for the stream stage": Facts(raw=HERE, arrival=ARRIVAL, streams_behind=12),
    "waiting for the sink": Facts(
        raw=HERE,
        arrival=ARRIVAL,
        event_id=ID,
        published=[Position(topics.EVENTS, 2, 3)],
        streams_behind=0,
        sink_behind=4,
    ),
    "missing": Facts(raw=HERE, arrival=ARRIVAL, streams_behind=0),
    "erased": Facts(
        raw=HERE, arrival=ARRIVAL, is_erased=True, published=[Position(topics.EVENTS, 2, 3)], streams_behind=0
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_outcome_is_named(case: str) -> None:
    """Event, duplicate of which, conflict with what, dead letter, waiting where, or missing."""
    found = timeline(CASES[case])
    assert found.outcome == case.split(maxsplit=1)[0]
    assert case.startswith(("event", "dead_letter", "conflict", "missing", "erased")) or case in found.summary
    if found.outcome == "duplicate":
        assert str(EARLIER) in found.summary
    if found.outcome == "conflict":
        assert ID in found.summary


def test_a_dead_letter_shows_every_reason() -> None:
    """Each broken rule has its field, its code, what was found and what is expected."""
    shown = "\n".join(lines(timeline(CASES["dead_letter"])))
    assert 'Device_Time bad_format: found "yesterday"' in shown
    assert "IMEI missing: found nothing, expected 15 digits" in shown


def test_times_between_the_stages_are_shown() -> None:
    """Each stage with a time has the seconds since the one before it."""
    facts = Facts(raw=HERE, arrival=ARRIVAL, event=event_row(HERE), committed_us=ARRIVED_US + 40_000)
    stages = {stage.stage: stage for stage in timeline(facts).stages}
    assert stages["request"].after_s is None
    assert (stages["outcome"].after_s, stages["row"].after_s) == (0.04, 0.21)
    assert "sender acme, 300 bytes" in stages["request"].detail


def test_what_kafka_has_deleted_is_shown_from_clickhouse_alone() -> None:
    """Without the raw record the row still gives outcome, position and times, and the trace says what is unknown."""
    found = timeline(Facts(raw=HERE, event=event_row(HERE), notes=["Kafka has deleted the raw record"]))
    assert (found.outcome, found.size_bytes, found.receipt_id) == ("event", None, RECEIPT)
    shown = "\n".join(lines(found))
    assert "sender and size unknown" in shown
    assert "note: Kafka has deleted the raw record" in shown


def test_a_receipt_and_an_id_are_distinguished() -> None:
    """A UUID is an event or a dead letter; a receipt may have an index; anything else is refused with an example."""
    assert of_identifier(ID.upper(), 0, 1).id == ID
    assert of_identifier(f"{RECEIPT}.3", 0, 1).receipt == f"{RECEIPT}.3"
    with pytest.raises(OperatorError, match="X-Receipt-Id"):
        of_identifier("sos", 0, 1)


def test_a_receipt_finds_all_events_of_its_request() -> None:
    """The receipt of a request of several events matches each of them, and no other request."""
    wanted = Wanted(receipt=RECEIPT, since_us=0, until_us=1)
    receipts = {RECEIPT: True, f"{RECEIPT}.0": True, f"{RECEIPT}0": False, "": False}
    for receipt, expected in receipts.items():
        arrival = Arrival(position=HERE, received_us=0, receipt_id=receipt, sender=None, payload=b"")
        assert wanted.matches(arrival, CLOCK) is expected, receipt


def test_an_id_finds_the_raw_record_by_the_real_rules() -> None:
    """The event_id and the dead_letter_id follow from the payload, so a record is found before it is processed."""
    payload = msgspec.json.encode(example("sos"))
    identification = identify(payload, ARRIVED_US, CLOCK)
    assert identification.valid
    arrival = Arrival(position=HERE, received_us=ARRIVED_US, receipt_id=None, sender=None, payload=payload)
    for identifier in (identification.event_id, identification.dead_letter_id):
        assert Wanted(id=identifier, since_us=0, until_us=1).matches(arrival, CLOCK)
    assert not Wanted(id=ID, since_us=0, until_us=1).matches(arrival, CLOCK)


@pytest.mark.parametrize(
    "arguments", [(), (RECEIPT, "--imei", "1"), ("--imei", "1"), ("--around", "2026-11-24T02:14:00Z")]
)
def test_a_trace_needs_one_way_to_find_the_event(arguments: tuple[str, ...]) -> None:
    """None, two, or half of one is a usage error."""
    assert CliRunner().invoke(cli, ["trace", *arguments]).exit_code == 2


def test_a_wrong_time_is_named() -> None:
    """A time that is none is a usage error that shows one."""
    result = CliRunner().invoke(cli, ["trace", "--imei", "1", "--around", "at night"])
    assert result.exit_code == 2
    assert "2026-11-24T02:14:00Z" in result.output
