"""Put the rows of a registry file into a device's history: intervals in, intervals out. Pure.

A row replaces whatever the history says of its period, and touches nothing else. So the same file again changes
nothing, a corrected file corrects the past, and a file of today's state, without times, leaves the past as it was.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from schemas.device import UNKNOWN_DEVICE, Device, Interval

#: Around every time in RFC 3339: bounds of periods that have none.
_BEGINNING, _END = "", "~"


@dataclass(frozen=True)
class Row:
    """What a file says of a device for a period; `entry` is None where the device is removed."""

    entry: Device | None
    valid_from: str | None = None  # None: from the load on
    valid_to: str | None = None  # None: up to the device's next row, or without end


def loaded(device: Device | None, rows: Sequence[Row], now: str) -> Device | None:
    """Return the device as it is after its rows were loaded at `now`; None if nothing is left to say."""
    history = () if device is None else device.history
    for row in rows:
        if row.valid_from is None:
            history = _replaced(history, row.entry, *_from_now_on(history, row.entry, now))
    timed = sorted((row.valid_from, row) for row in rows if row.valid_from is not None)
    for (begin, row), following in zip(timed, [*(begin for begin, _ in timed[1:]), None], strict=False):
        history = _replaced(history, row.entry, begin, row.valid_to or following)
    return _device(history, now)


def _from_now_on(history: Sequence[Interval], entry: Device | None, now: str) -> tuple[str | None, str | None]:
    """Return the period of a row without times.

    The first that is heard of a device held before, too: nothing else is known. A change that is planned stays planned,
    unless the device is removed.
    """
    if not history:
        return None, None
    planned = [i.valid_from for i in history if i.valid_from is not None and i.valid_from > now]
    return now, min(planned, default=None) if entry is not None else None


def _replaced(
    history: Iterable[Interval], entry: Device | None, begin: str | None, end: str | None
) -> tuple[Interval, ...]:
    """Return the history with what holds from `begin` to `end` replaced by the entry."""
    kept = [piece for interval in history for piece in _outside(interval, begin, end)]
    if entry is not None:
        kept.append(Interval(entry.vehicle, entry.fleet, entry.driver, begin, end))
    return _joined(sorted(kept, key=lambda interval: interval.valid_from or _BEGINNING))


def _outside(interval: Interval, begin: str | None, end: str | None) -> list[Interval]:
    """Return what is left of an interval before `begin` and from `end` on."""
    low, high = interval.valid_from or _BEGINNING, interval.valid_to or _END
    pieces = []
    if low < (begin or _BEGINNING):
        pieces.append(msgspec.structs.replace(interval, valid_to=min(high, begin or _BEGINNING)))
    if (end or _END) < high:
        pieces.append(msgspec.structs.replace(interval, valid_from=max(low, end or _END)))
    return pieces


def _joined(history: Iterable[Interval]) -> tuple[Interval, ...]:
    """Join neighbours that say the same."""
    joined: list[Interval] = []
    for interval in history:
        last = joined[-1] if joined else None
        if last is not None and last.valid_to == interval.valid_from and _said(last) == _said(interval):
            joined[-1] = msgspec.structs.replace(last, valid_to=interval.valid_to)
        else:
            joined.append(interval)
    return tuple(joined)


def _said(interval: Interval) -> tuple[str | None, str | None, str | None]:
    return interval.vehicle, interval.fleet, interval.driver


def _device(history: tuple[Interval, ...], now: str) -> Device | None:
    if not history:
        return None
    if len(history) == 1 and history[0].valid_from is history[0].valid_to is None:
        return Device(*_said(history[0]))
    current = Device(intervals=history).at(now)
    held = UNKNOWN_DEVICE if current is UNKNOWN_DEVICE else current
    return Device(held.vehicle, held.fleet, held.driver, history)
