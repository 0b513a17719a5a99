"""The dead letter of a row that ClickHouse refuses carries the bytes, the reason and the position."""

import base64

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sinks.bisection import Refusal
from sinks.dead_letters import dead_letter
from sinks.row_encoder import DEAD_LETTER_ROWS
from tests.unit.sink_doubles import EVENTS, record
from tests.unit.test_sink_row_encoder import event


def test_what_is_known_of_the_event_is_kept() -> None:
    """Type, IMEI, arrival and receipt are those of the event; the payload is the record's value untouched."""
    value = msgspec.json.encode(event(receipt_id="r7"))
    letter = dead_letter(EVENTS, Refusal(record(41, value), "Code: 469"))
    assert (letter.stage, letter.event, letter.imei) == ("sink", "overspeed", "350612075195931")
    assert (letter.receipt_id, letter.received_at) == ("r7", "2024-06-28T18:49:46.123456Z")
    assert (letter.payload.encode(), letter.payload_encoding) == (value, "utf-8")
    assert [(reason.code, reason.found) for reason in letter.reasons] == [("refused_by_clickhouse", "Code: 469")]
    assert (letter.raw.topic, letter.raw.partition, letter.raw.offset) == (EVENTS.topic, 3, 41)


@given(st.binary(max_size=200) | st.text().map(str.encode) | st.just(None))
def test_any_bytes_become_a_dead_letter_that_can_be_stored(value: bytes | None) -> None:
    """Nothing that a record may hold keeps its dead letter from being a row, and no byte of it is lost."""
    letter = dead_letter(EVENTS, Refusal(record(41).__class__(41, value), "why"))
    assert DEAD_LETTER_ROWS.blocks([msgspec.json.encode(letter)])
    payload = letter.payload.encode()
    assert (base64.b64decode(payload) if letter.payload_encoding == "base64" else payload) == (value or b"")


def test_its_id_is_a_function_of_the_position() -> None:
    """The same record gives the same id, another one another."""
    ids = [dead_letter(EVENTS, Refusal(record(offset), "why")).dead_letter_id for offset in (41, 41, 42)]
    assert ids[0] == ids[1] != ids[2]
