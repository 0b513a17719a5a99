"""Reading a batch by the column gives what the rules give, event by event."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas import time_columns, times
from schemas.validation import ClockLimits, ValidEvent, validate
from streams.decoding import InvalidRecord, ValidEvents, arrivals, decode

EXAMPLES = sorted(Path("schemas/examples").glob("*.json"))
SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
RECEIVED_US = times.parse("2024-06-28T18:49:46.000000+0000")
CLOCK = ClockLimits.of_seconds(300, 86_400)
RECEIVED = [("arrival_us", b"%d" % RECEIVED_US)]


def record(offset: int, value: bytes | None, headers: Any = RECEIVED, timestamp: int = 0) -> Any:
    """A raw record."""
    return SimpleNamespace(offset=offset, timestamp=timestamp, key=None, value=value, headers=headers)


def at(events: ValidEvents, row: int) -> ValidEvent:
    """One row of the columns, as the rules give an event."""
    assert times.parse(events.device_time[row][:26] + "Z") == events.device_us[row]
    assert times.parse(events.server_time[row][:26] + "Z") == events.server_us[row]
    values = {name: getattr(events, name)[row] for name in ValidEvent.__struct_fields__}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return ValidEvent(**plain | {"extra": bytes(plain["extra"])})


def decoded(records: list[Any]) -> tuple[ValidEvents, list[InvalidRecord]]:
    """Decode records of partition 3."""
    return decode(records, np.full(len(records), 3), CLOCK)


def check(values: list[bytes]) -> None:
    """Every record is, in order, what the rules say of it."""
    events, invalid = decoded([record(offset, value) for offset, value in enumerate(values)])
    by_rule = [validate(value, RECEIVED_US, CLOCK) for value in values]
    valid = [(offset, found) for offset, found in enumerate(by_rule) if isinstance(found, ValidEvent)]
    assert [r.offset for r in events.records] == [offset for offset, _ in valid]
    for row, (_, found) in enumerate(valid):
        assert repr(at(events, row)) == repr(found)  # repr: zeros keep their sign
    assert [(i.record.offset, i.violations) for i in invalid] == [
        (offset, found) for offset, found in enumerate(by_rule) if not isinstance(found, ValidEvent)
    ]


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from([
        *SAMPLE.values(), "22.9, 75.5", "-0,0", "2024-06-28T17:52:13Z", "2024-06-28T17:52:13.000000+00:00", "91,0",
        "+1,2", "1_0,2", " 1 ,2", "1\n,2", "1/,2", "1,2,3", "1,", "\ud7ff", "2024-02-30T17:52:13.000000+0000",
        "2024-13-28T17:52:13.000000+0000", "2024-06-28T17:52:60.000000+0000", "0000-06-28T17:52:13.000000+0000",
        "2024-06-28T17:52:1٣.000000+0000", "x" * 129, "x" * 513, "x" * 2049, "a\0b", "1" * 15, "٣" * 15,
        "1." + "0" * 70 + ",2", "\ud83d", "Fuel Drain", "SOS ", "\u200b", "2024-06-28T17:52:13.1234567Z",
        "2024-06-29T17:52:13.000000+0000", "2024-06-30T17:52:13.000000+0000", 50.0, 1e3, 12.5, "0,0", "say \"hello\"",
    ]),
)  # fmt: skip
payloads = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(st.sampled_from([*SAMPLE, "Speed"]), odd_values, max_size=3).map(
        lambda changed: json.dumps({**SAMPLE, **changed}).encode()
    ),
    st.sampled_from([json.dumps(SAMPLE).encode(), json.dumps(SAMPLE).encode()[:-1] + b', "Odd": "\xff"}']),
    st.sampled_from(
        [
            json.dumps(SAMPLE).encode()[:-1] + more
            for more in (
                b', "Card": {"id":\n[1]}}',
                b', "odometer": 1e400}',
                b', "Note": "\\ud83d"}',
                b', "Changes": 50}',
                b', "Speed": 1, "Speed": 2}',
                b',"Speed":1}',
                b' ,  "Speed": 1 }',
                b', "Sp\\u0065ed": 1}',
            )
        ]
    ),
    st.sampled_from(
        [
            json.dumps({name: SAMPLE[name] for name in SAMPLE if name != absent}).encode()
            for absent in ("Location", "Geofence_Name", "Changes")
        ]
    ),
    st.just(json.dumps({n: v for n, v in SAMPLE.items() if n != "Geofence_Name"}).encode()[:-1] + b', "Changes": 50}'),
)


@given(st.lists(payloads, min_size=1, max_size=8))
def test_columns_and_rules_are_one_set_of_rules(values: list[bytes]) -> None:
    """Whatever is in a batch, each record is valid, parsed and refused exactly as the rules say."""
    check(values)


def test_every_example_is_read_as_the_rules_read_it() -> None:
    """Also unknown types and fields."""
    check([path.read_bytes() for path in EXAMPLES])


def test_a_payload_that_is_too_large_is_refused_as_the_rules_refuse_it() -> None:
    """Whatever is in it, plain or not."""
    check([json.dumps({**SAMPLE, name: "x" * 3 * 2**20}).encode() for name in ("Speed", "Location")])


def test_a_record_that_came_past_the_ingress_counts_by_its_timestamp() -> None:
    """No header, a header that is no number, and numbers beyond every calendar: arrival is a time all the same."""
    headers: list[list[tuple[str, bytes]]] = [
        [],
        [("arrival_us", b"soon")],
        [("arrival_us", b"9" * 18)],
        [("arrival_us", b"9" * 30)],
    ]
    records = [record(n, b"", h, timestamp=1_719_600_586_000) for n, h in enumerate(headers)]
    _, invalid = decoded([*records, record(4, b"", [], -1), record(5, b"", [], 2**63 - 1)])
    last_us = 253_402_300_799_999_999
    assert [i.received_us for i in invalid] == [RECEIVED_US, RECEIVED_US, last_us, RECEIVED_US, 0, last_us]


def test_arrival_and_receipt_are_found_among_any_headers() -> None:
    """As the ingress writes them, with a trace between, the other way round, and one of them alone."""
    arrival, receipt, trace = ("arrival_us", b"17"), ("receipt_id", b"r-1"), ("traceparent", b"00-1")
    orders: list[list[tuple[str, bytes]]] = [
        [arrival, receipt], [arrival, trace, receipt], [receipt, arrival], [arrival, trace], [trace, receipt], [trace]
    ]  # fmt: skip
    arrived = arrivals([record(n, b"", h, timestamp=5) for n, h in enumerate(orders)])
    assert arrived.received_us.tolist() == [17, 17, 17, 17, 5_000, 5_000]
    assert arrived.receipt_ids == ["r-1", "r-1", "r-1", None, "r-1", None]


@given(st.lists(st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000").rjust(31, "0"))))
def test_times_by_the_column_are_those_one_by_one(texts: list[str]) -> None:
    """Every instant of the calendar."""
    us, unread = time_columns.parse(texts)
    assert unread == []
    assert us.tolist() == [times.parse(text) for text in texts]
    assert time_columns.rfc3339_texts(us) == [text[:26] + "Z" for text in texts]
