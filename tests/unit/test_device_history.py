"""What a registry file makes of a device's history."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from eventpush.device_history import Row, loaded
from runtime.platform import settings
from schemas.device import UNKNOWN_DEVICE, Device, Interval
from streams.device_registry import DeviceRegistry

A, B, C = Device("A"), Device("B", "Indore"), Device("C", driver="C. Rao")
NOW = "2026-06-15T12:00:00.000000Z"


def day(number: int) -> str:
    """A day of June 2026."""
    return f"2026-06-{number:02d}T00:00:00.000000Z"


def history(*rows: tuple[Device, str | None, str | None]) -> tuple[Interval, ...]:
    return tuple(Interval(d.vehicle, d.fleet, d.driver, begin, end) for d, begin, end in rows)


def after(*loads: Sequence[Row]) -> Device | None:
    """The device after loads at `NOW`."""
    device = None
    for rows in loads:
        device = loaded(device, rows, NOW)
    return device


def test_a_first_line_without_times_holds_at_any_time() -> None:
    """Its record is the one of earlier releases, which hold at any time too."""
    device = after([Row(A)])
    assert device == A
    assert msgspec.json.encode(device) == b'{"vehicle":"A","fleet":null,"driver":null,"intervals":null}'
    assert msgspec.json.decode(b'{"vehicle":"A","fleet":null,"driver":null}', type=Device) == A
    assert A.history == history((A, None, None))


def test_a_change_without_times_holds_from_now_on() -> None:
    """The past stays; the same line again changes nothing; a planned change stays planned."""
    changed = after([Row(A)], [Row(B)])
    assert changed == Device("B", "Indore", None, history((A, None, NOW), (B, NOW, None)))
    assert loaded(changed, [Row(B)], day(20)) == changed
    planned = after([Row(A), Row(C, day(20))], [Row(B)])
    assert planned is not None
    assert planned.history == history((A, None, NOW), (B, NOW, day(20)), (C, day(20), None))


def test_a_removed_device_keeps_its_past() -> None:
    """From now on it is unknown, plans included; added again, it has a gap. What never was there stays away."""
    removed = after([Row(A), Row(B, day(20))], [Row(None)])
    assert removed == Device(None, None, None, history((A, None, NOW)))
    again = loaded(removed, [Row(A)], day(20))
    assert again is not None
    assert again.history == history((A, None, NOW), (A, day(20), None))
    assert after([Row(None)]) is None


def test_a_correction_replaces_its_period_only() -> None:
    """In the middle, over several intervals, and up to the end; neighbours that say the same become one."""
    rows = [Row(A, day(1)), Row(B, day(10))]
    device = after(rows)
    assert device == Device("B", "Indore", None, history((A, day(1), day(10)), (B, day(10), None)))
    corrected = loaded(device, [Row(C, day(5), day(12))], NOW)
    assert corrected is not None
    assert corrected.history == history((A, day(1), day(5)), (C, day(5), day(12)), (B, day(12), None))
    assert loaded(corrected, rows, NOW) == device
    assert after(rows, [Row(A, day(8))]) == Device("A", intervals=history((A, day(1), None)))
    hole = after(rows, [Row(None, day(9), day(11))])
    assert hole is not None
    assert hole.history == history((A, day(1), day(9)), (B, day(11), None))


def test_what_held_at_a_moment() -> None:
    """Beginnings are included, ends are not; outside of all intervals nothing is known."""
    device = Device("C", intervals=history((A, day(1), day(5)), (B, day(10), None)))
    names = {number: device.at(day(number)).vehicle for number in (1, 4, 5, 9, 10, 30)}
    assert names == {1: "A", 4: "A", 5: None, 9: None, 10: "B", 30: "B"}
    assert device.at("2026-05-31T23:59:59.999999Z") == UNKNOWN_DEVICE
    assert A.at(day(1)) == A


def test_a_worker_forgets_what_no_event_can_need() -> None:
    """Of a history, what ended before the oldest record in Kafka; of records that it cannot read, all."""
    registry = DeviceRegistry(settings.load({"EVENTPUSH_TOPIC_RETENTION_H": "24"}))
    long_ago = history((A, None, "2020-01-01T00:00:00.000000Z"), (B, "2020-01-01T00:00:00.000000Z", None))
    registry.apply(b"350612075195931", msgspec.json.encode(Device("B", intervals=long_ago)))
    assert registry.devices["350612075195931"].intervals == long_ago[1:]
    registry.apply(b"350612075195931", None)
    assert registry.devices == {}


def _is_rao(driver: str | None) -> bool:
    return driver == "C. Rao"


def test_an_erased_driver_is_in_no_interval() -> None:
    """Everything else stays; a device without the driver is the same object, so nothing is written for it."""
    device = Device("V", None, "C. Rao", history((C, None, day(5)), (A, day(5), None)))
    forgotten = device.without_drivers(_is_rao)
    assert forgotten == Device("V", None, None, history((Device("C"), None, day(5)), (A, day(5), None)))
    assert forgotten.without_drivers(_is_rao) is forgotten
    assert C.without_drivers(_is_rao) == Device("C")


_DAYS = st.integers(1, 28)
_ENTRIES = st.sampled_from([A, B, C, None])


@st.composite
def files(draw: st.DrawFn) -> list[Row]:
    """Rows of one device whose periods do not overlap, as the file's check lets them pass."""
    begins = sorted(draw(st.sets(_DAYS, max_size=4)))
    rows = []
    for begin, following in pairwise([*begins, 29]):
        end = draw(st.none() | st.integers(begin + 1, following))
        rows.append(Row(draw(_ENTRIES), day(begin), None if end is None else day(end)))
    return draw(st.permutations(rows))


@given(st.lists(files(), max_size=5))
def test_any_loads_say_of_each_day_what_the_last_row_said(loads: list[list[Row]]) -> None:
    """Day by day, the history is what the last row that covers the day says; it is in order, joined, and stable."""
    said: dict[int, str | None] = dict.fromkeys(range(29))
    device = None
    for rows in loads:
        timed = sorted(rows, key=lambda row: str(row.valid_from))
        for at, row in enumerate(timed):
            begin = int(str(row.valid_from)[8:10])
            until = row.valid_to or (timed[at + 1].valid_from if at + 1 < len(timed) else None)
            for number in range(begin, int(until[8:10]) if until else 29):
                said[number] = row.entry.vehicle if row.entry else None
        device = loaded(device, rows, NOW)
        assert device is None or loaded(device, rows, NOW) == device
    found = device or Device(intervals=())
    assert {number: found.at(day(number)).vehicle for number in range(1, 29)} == {n: said[n] for n in range(1, 29)}
    intervals = found.history if device else ()
    for first, second in pairwise(intervals):
        assert str(first.valid_to) <= str(second.valid_from)
        assert first.valid_to != second.valid_from or first.vehicle != second.vehicle
