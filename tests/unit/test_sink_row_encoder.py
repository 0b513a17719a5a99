"""Records become blocks of the Native format that say what the record said, column by column."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from clickhouse_connect.driver import ctypes
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import given
from hypothesis import strategies as st

from schemas import times
from schemas.dead_letter import Conflict, DeadLetter, Violation
from schemas.event import Event, RawPosition
from schemas.fields import fields_of
from sinks import native_format
from sinks.row_encoder import _CHUNK_ROWS, DEAD_LETTER_ROWS, EVENT_ROWS, UNMAPPABLE, RowEncoder

MOMENT = "2024-06-28T17:52:13.000001Z"


def event(**changed: object) -> Event:
    """A valid event of which some fields are other."""
    base = Event(
        event_id="0198c5d6-0000-7000-8000-0123456789ab", event="overspeed", changes=50, imei="350612075195931",
        device_time=MOMENT, server_time="2024-06-28T18:49:45.000000Z", received_at="2024-06-28T18:49:46.123456Z",
        latitude=22.927968, longitude=75.533275, location="Kharsora, Indore – भारत", geofence_name=None,
        category="driving", severity="warning", h3_r7="872a1072bffffff", h3_r9="892a1072b5bffff",
        time_zone="Asia/Kolkata", device_time_local="2024-06-28T23:22:13.000001+05:30", imei_valid=True, tac="35061207",
        device_delay_ms=3_452_000, platform_delay_ms=-877, vehicle="MP09 AB 1234", fleet=None, driver="",
        receipt_id=None, sender="fleet-a", event_as_sent=None,
        warnings=["position_zero"], extra=msgspec.Raw(b'{"Speed":81.5}'),
        raw=RawPosition("telematics.raw.v1", 3, 2**40),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changed)


def dead_letter(**changed: object) -> DeadLetter:
    """A dead letter of which some fields are other."""
    base = DeadLetter(
        dead_letter_id="0198c5d6-0000-7000-8000-0123456789ab", stage="streams",
        reasons=[Violation("missing", "IMEI", "", "15 digits"), Violation("empty", "Event", '""', "a type")],
        event=None, imei=None, received_at=MOMENT, receipt_id="r1", sender=None,
        payload='{"Event": ""}', payload_encoding="utf-8", conflict_with=None,
        replay_of="0198c5d6-0000-7000-8000-0123456789ac", attempt=1,
        raw=RawPosition("telematics.raw.v1", 0, 7),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changed)


def stored(rows: RowEncoder, *structs: msgspec.Struct) -> list[dict[str, object]]:
    """What ClickHouse would read from the insert of these records."""
    return [
        dict(zip([column.name for column in rows.table.columns], row, strict=True))
        for row in _read(rows.blocks([msgspec.json.encode(struct) for struct in structs]))
    ]


def _read(block: bytes) -> Iterator[tuple[object, ...]]:
    class Source:
        gen = iter([block])

        def close(self) -> None: ...

    result: Any = NativeTransform.parse_response(ctypes.RespBuffCls(Source()))
    yield from result.result_rows


def test_an_event_is_stored_as_it_was_published() -> None:
    """Every column carries the field of its name; times are instants, the local one is the wall clock."""
    (row,) = stored(EVENT_ROWS, event())
    assert row == {
        **msgspec.structs.asdict(event()),
        "event_id": UUID("0198c5d6-0000-7000-8000-0123456789ab"),
        "device_time": datetime.fromisoformat("2024-06-28T17:52:13.000001"),
        "server_time": datetime.fromisoformat("2024-06-28T18:49:45"),
        "received_at": datetime.fromisoformat("2024-06-28T18:49:46.123456"),
        "device_time_local": datetime.fromisoformat("2024-06-28T23:22:13.000001"),
        "h3_r7": 0x872A1072BFFFFFF,
        "h3_r9": 0x892A1072B5BFFFF,
        "extra": '{"Speed":81.5}',
        "raw": {"topic": "telematics.raw.v1", "partition": 3, "offset": 2**40},
    }


def test_a_dead_letter_is_stored_as_it_was_published() -> None:
    """All reasons are kept, and the event that it conflicts with is there or NULL."""
    conflicting = dead_letter(conflict_with=Conflict("0198c5d6-0000-7000-8000-0000000000ff"), event="sos")
    plain, conflict = stored(DEAD_LETTER_ROWS, dead_letter(), conflicting)
    assert plain["reasons"] == [
        {"code": "missing", "field": "IMEI", "found": "", "expected": "15 digits"},
        {"code": "empty", "field": "Event", "found": '""', "expected": "a type"},
    ]
    assert (plain["conflict_with_event_id"], plain["event"], plain["imei"]) == (None, None, None)
    assert conflict["conflict_with_event_id"] == UUID("0198c5d6-0000-7000-8000-0000000000ff")
    assert conflict["event"] == "sos"


def test_an_event_of_the_first_release_is_stored() -> None:
    """Kafka may still hold events with H3 cells as integers and without the fields that came later."""
    fields = json.loads(msgspec.json.encode(event(warnings=[])))
    for name in [name for name, declared in fields_of(Event).items() if declared.since]:
        del fields[name]
    old = fields | {"h3_r7": int(fields["h3_r7"], 16), "h3_r9": int(fields["h3_r9"], 16)}
    first = _read(EVENT_ROWS.blocks([json.dumps(old).encode()]))
    now = event(warnings=[], sender=None, extra=msgspec.Raw(b'{"Speed": 81.5}'))
    assert list(first) == list(_read(EVENT_ROWS.blocks([msgspec.json.encode(now)])))


def test_a_null_name_and_an_empty_one_stay_apart() -> None:
    """A geofence without a name is not the same as none: they are different identities."""
    rows = stored(EVENT_ROWS, event(), event(geofence_name=""), event(geofence_name="Depot"))
    assert [row["geofence_name"] for row in rows] == [None, "", "Depot"]


def test_a_large_batch_keeps_its_order() -> None:
    """Rows come out in the order of the records, also over the edges of the chunks in which they are mapped."""
    changes = range(2 * _CHUNK_ROWS + 1)
    assert [row["changes"] for row in stored(EVENT_ROWS, *(event(changes=n) for n in changes))] == list(changes)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"\xff",
        msgspec.json.encode(event(device_time="2024-06-28T17:52:13Z")),
        msgspec.json.encode(event(device_time="2024-06-28T17:52:13.000001+")),
        msgspec.json.encode(event(device_time="2024-13-28T17:52:13.000001Z")),
        msgspec.json.encode(event(device_time_local="NaT")),
        msgspec.json.encode(event(event_id="0198c5d6")),
        msgspec.json.encode(event(h3_r7="")),
        msgspec.json.encode(event(h3_r7="872a1072bfffffg")),
        msgspec.json.encode(event(raw=RawPosition("t", -1, 0))),
        msgspec.json.encode(event()).replace(b'"changes":50', b'"changes":99999999999999999999'),
    ],
)
def test_what_is_no_row_is_refused(value: bytes | None) -> None:
    """One bad record among good ones makes the mapping raise what the bisection acts on; nothing is made up for it."""
    good = msgspec.json.encode(event())
    with pytest.raises(UNMAPPABLE):
        EVENT_ROWS.blocks([good, value, good])


@given(st.lists(st.integers(0, 4_102_444_800_000_000), min_size=1, max_size=5))
def test_times_keep_their_microseconds(instants: list[int]) -> None:
    """Text of any instant of 1970 to 2100 becomes the same number of microseconds."""
    texts = [times.rfc3339(us) for us in instants]
    assert native_format.instants(texts) == b"".join(us.to_bytes(8, "little") for us in instants)


@given(st.lists(st.uuids(), min_size=1, max_size=5))
def test_uuids_keep_their_value(uuids: list[UUID]) -> None:
    """ClickHouse stores a UUID as two little-endian halves, the high one first."""
    expected = b"".join(u.bytes[7::-1] + u.bytes[:7:-1] for u in uuids)
    assert native_format.uuids([str(u) for u in uuids]) == expected
