"""Whatever valid JSON an unknown field holds, each of our readers of published events reads the event."""

import csv
from types import SimpleNamespace

import msgspec
import pytest

from eventpush import record_text
from eventpush.console.feed import event_of
from eventpush.reconciliation.reconcile import _outcome
from eventpush.tracing.kafka_facts import _output
from schemas.event import RawPosition
from schemas.json_text import decoder_of
from sinks.bisection import Refusal
from sinks.dead_letters import dead_letter
from sinks.row_encoder import EVENT_ROWS
from tests.unit.sink_doubles import EVENTS, record
from tests.unit.test_json_grammar import VALID
from tests.unit.test_sink_row_encoder import MOMENT, _read, event

EXTRAS = {kind: b'{"unknown":' + text + b"}" for kind, text in VALID.items()}


def published(extra: bytes) -> bytes:
    """An event on its topic."""
    return msgspec.json.encode(event(extra=msgspec.Raw(extra)))


@pytest.mark.parametrize("kind", EXTRAS)
def test_the_sink_stores_unknown_fields_as_they_were_sent(kind: str) -> None:
    """One that msgspec refuses makes neither its own row nor its neighbours' fail."""
    values = [published(b"{}"), published(EXTRAS[kind])]
    at = [column.name for column in EVENT_ROWS.table.columns].index("extra")
    assert [row[at] for row in _read(EVENT_ROWS.blocks(values))] == ["{}", EXTRAS[kind].decode()]
    assert EVENT_ROWS.places(values) == ([event().event_id] * 2, MOMENT, MOMENT)


@pytest.mark.parametrize("kind", EXTRAS)
def test_operators_tools_read_every_event(kind: str) -> None:
    """The map, the trace, the account and `tail` find the fields that they need; CSV shows what was sent."""
    value = published(EXTRAS[kind])
    on_map = event_of(value)
    assert on_map is not None
    assert on_map.event_id == _outcome(value).event_id == event().event_id
    assert _output(value).raw == RawPosition("telematics.raw.v1", 3, 2**40)
    assert record_text.line(value) == record_text.line(published(b"{}"))
    record = SimpleNamespace(value=value, headers=[])
    (cells,) = csv.reader([record_text.as_csv(["imei", "extra"], [])(record)])
    assert cells[0] == event().imei
    assert cells[1].startswith('{"unknown":')


def test_only_unpaired_surrogates_are_replaced() -> None:
    r"""Pairs, escaped backslashes and other escapes stay; `\ud83d` without its partner is U+FFFD."""
    raw = rb'{"a":"\ud83d\ude92 \\ud83d \u00e9 \ud83d \ude92\ud83d \\\ud83dx"}'
    assert decoder_of(dict[str, str])(raw) == {"a": "🚒 \\ud83d é � �� \\�x"}
    with pytest.raises(msgspec.MsgspecError):
        decoder_of(dict[str, str])(b'{"a":"\\ud83d"')


@pytest.mark.parametrize("kind", EXTRAS)
def test_the_sinks_dead_letter_names_every_event(kind: str) -> None:
    """Whatever it holds, a row that ClickHouse refuses keeps its type, IMEI and arrival."""
    letter = dead_letter(EVENTS, Refusal(record(41, published(EXTRAS[kind])), "Code: 469"))
    assert (letter.event, letter.imei, letter.received_at) == ("overspeed", event().imei, event().received_at)
