"""Reading a batch by the column gives what the rules give, event by event."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas import times
from schemas.validation import ValidEvent, validate
from streams import timestamp_columns
from streams.decoding import ValidEvents, arrivals, read

EXAMPLES = sorted(Path("schemas/examples").glob("*.json"))
SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
RECEIVED_US = times.parse("2024-06-28T18:49:46.000000+0000")
SKEW_US = 300_000_000
RECEIVED = [("arrival_us", b"%d" % RECEIVED_US)]


def record(offset: int, value: bytes | None, headers: Any = RECEIVED, timestamp: int = 0) -> Any:
    """A raw record."""
    return SimpleNamespace(offset=offset, timestamp=timestamp, key=None, value=value, headers=headers)


def at(events: ValidEvents, row: int) -> ValidEvent:
    """One row of the columns, as the rules give an event."""
    sent = events.sent[row]
    return ValidEvent(
        sent.event,
        sent.changes,
        sent.imei,
        int(events.device_us[row]),
        int(events.server_us[row]),
        sent.device_time[:26] + "Z",
        sent.server_time[:26] + "Z",
        float(events.latitudes[row]),
        float(events.longitudes[row]),
        sent.location,
        sent.geofence_name,
        events.extras[row],
    )


def picture(event: ValidEvent) -> str:
    """All of the event; zeros keep their sign."""
    return repr(msgspec.structs.asdict(event) | {"extra": {name: bytes(raw) for name, raw in event.extra.items()}})


def check(values: list[bytes]) -> None:
    """Every record is, in order, what the rules say of it."""
    events, invalid = read([record(offset, value) for offset, value in enumerate(values)], SKEW_US)
    by_rule = [validate(value, RECEIVED_US, SKEW_US) for value in values]
    valid = [(offset, found) for offset, found in enumerate(by_rule) if isinstance(found, ValidEvent)]
    assert [r.offset for r in events.records] == [offset for offset, _ in valid]
    for row, (_, found) in enumerate(valid):
        assert picture(at(events, row)) == picture(found)
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
        "1." + "0" * 70 + ",2",
    ]),
)  # fmt: skip
payloads = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(st.sampled_from([*SAMPLE, "Speed"]), odd_values, max_size=3).map(
        lambda changed: json.dumps({**SAMPLE, **changed}).encode()
    ),
    st.sampled_from([json.dumps(SAMPLE).encode(), json.dumps(SAMPLE).encode()[:-1] + b', "Odd": "\xff"}']),
    st.sampled_from([json.dumps(SAMPLE).encode()[:-1] + b', "Card": {"id":\n[1]}}']),
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
    _, invalid = read([*records, record(4, b"", [], -1), record(5, b"", [], 2**63 - 1)], SKEW_US)
    last_us = 253_402_300_799_999_999
    assert [i.received_us for i in invalid] == [RECEIVED_US, RECEIVED_US, last_us, RECEIVED_US, 0, last_us]


def test_arrival_and_receipt_are_found_among_any_headers() -> None:
    """As the ingress writes them, with a trace between, the other way round, and one of them alone."""
    arrival, receipt, trace = ("arrival_us", b"17"), ("receipt_id", b"r-1"), ("traceparent", b"00-1")
    orders: list[list[tuple[str, bytes]]] = [
        [arrival, receipt], [arrival, trace, receipt], [receipt, arrival], [arrival, trace], [trace, receipt], [trace]
    ]  # fmt: skip
    received_us, receipt_ids = arrivals([record(n, b"", h, timestamp=5) for n, h in enumerate(orders)])
    assert received_us.tolist() == [17, 17, 17, 17, 5_000, 5_000]
    assert receipt_ids == ["r-1", "r-1", "r-1", None, "r-1", None]


@given(st.lists(st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000").rjust(31, "0"))))
def test_times_by_the_column_are_those_one_by_one(texts: list[str]) -> None:
    """Every instant of the calendar."""
    us, ok = timestamp_columns.parse(texts)
    assert ok.all()
    assert us.tolist() == [times.parse(text) for text in texts]
    assert timestamp_columns.rfc3339_texts(us) == [text[:26] + "Z" for text in texts]
