"""What the sink makes of the registry's records."""

from types import SimpleNamespace
from typing import Any

from schemas.device import Interval
from schemas.erasure import Erased, Erasure, Pseudonyms, encode
from sinks.device_mirror import Row, changed_period, row_of

IMEI = "350612075195931"
MAY, JUNE, JULY = (f"2026-0{month}-01T00:00:00.000000Z" for month in (5, 6, 7))


NAMES = Pseudonyms("a key of sixteen or more")
NOBODY = Erased(lambda: NAMES)


def record(value: bytes | None) -> Any:
    return SimpleNamespace(key=IMEI.encode(), value=value, partition=1, offset=7, timestamp=1_780_272_000_000)


def test_a_record_is_a_row() -> None:
    """Those of earlier releases, which hold at any time, and null values, which leave nothing."""
    at = "2026-06-01T00:00:00.000000Z"
    old = b'{"vehicle":"MP09","fleet":null,"driver":"A. Rao"}'
    assert row_of(record(old), NOBODY) == Row(IMEI, (Interval("MP09", None, "A. Rao"),), 1, 7, at)
    assert row_of(record(None), NOBODY) == Row(IMEI, (), 1, 7, at)
    new = b'{"intervals":[{"vehicle":"MP09","valid_to":"2026-06-01T00:00:00.000000Z"}]}'
    assert row_of(record(new), NOBODY) == Row(IMEI, (Interval("MP09", valid_to=JUNE),), 1, 7, at)


def test_a_record_that_is_none_is_left_out() -> None:
    """Not JSON, another shape, or no time: no row, and the sink goes on."""
    times = (b"2026-06-01", b"2026-13-01T00:00:00.000000Z")
    values = [b"", b"[]", b'{"vehicle":1}', *(b'{"intervals":[{"valid_to":"%s"}]}' % time for time in times)]
    assert [row_of(record(value), NOBODY) for value in values] == [None] * len(values)


def test_what_a_change_is_about() -> None:
    """From the first to the last moment of which two histories say something else."""
    a, b = Interval("A", valid_from=MAY, valid_to=JUNE), Interval("B", valid_from=JUNE)
    assert changed_period((a, b), (a, b)) is None
    assert changed_period((), (a,)) == (MAY, JUNE)
    assert changed_period((Interval("A"),), ()) == ("", "~")
    assert changed_period((a, b), (a, Interval("C", valid_from=JUNE))) == (JUNE, "~")
    assert changed_period((a, b), (a, Interval("B", valid_from=JUNE, valid_to=JULY))) == (JUNE, "~")


def test_who_was_erased_has_no_history() -> None:
    """An erased device has no interval, an erased driver is in none, whatever the registry says again."""
    erased = Erased(lambda: NAMES)
    for kind, name in (("device", IMEI), ("driver", "A. Rao")):
        erased.apply(NAMES.of(kind, name).encode(), encode(Erasure(kind, NAMES.key_id, JUNE)))  # type: ignore[arg-type] # the kinds are literals
    value = b'{"intervals":[{"driver":"A. Rao","valid_to":"2026-06-01T00:00:00.000000Z"},{"driver":"B. Sen"}]}'
    row = row_of(record(value), erased)
    assert row is not None
    assert row.intervals == ()
    other = SimpleNamespace(**vars(record(value)) | {"key": b"350612075195949"})
    row = row_of(other, erased)
    assert row is not None
    assert [interval.driver for interval in row.intervals] == [None, "B. Sen"]
