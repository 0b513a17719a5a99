"""The newest events for the map: a ring of fixed size with columns to filter and cluster by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.event_types import SEVERITIES

#: South-west and north-east corner, each as latitude and longitude in degrees.
Bounds = tuple[tuple[float, float], tuple[float, float]]

_NAMES_MAX = 2_000  # different types, fleets or senders; further ones share one code
_OTHER = "(other)"


class MapEvent(msgspec.Struct, frozen=True, gc=False):
    """What the map needs of an event on the topic."""

    event_id: str
    event: str
    imei: str
    device_time: str
    latitude: float
    longitude: float
    severity: str
    vehicle: str | None = None
    fleet: str | None = None
    driver: str | None = None
    location: str | None = None
    sender: str | None = None


class Names:
    """Codes for the different values of a column."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {_OTHER: 0}

    def code(self, name: str | None) -> int:
        """Return the name's code."""
        if name not in self._codes:
            if len(self._codes) >= _NAMES_MAX:
                return 0
            self._codes[name] = len(self._codes)
        return self._codes[name]

    def known(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(name for name in self._codes if name and name != _OTHER)


@dataclass(frozen=True)
class Filter:
    """Which events are shown; an empty list shows all."""

    types: Sequence[str] = ()
    fleets: Sequence[str] = ()
    senders: Sequence[str] = ()
    severities: Sequence[str] = ()


class EventRing:
    """The newest `capacity` events; `version` changes with each addition."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.types, self.fleets, self.senders = Names(), Names(), Names()
        self.version = 0
        self.clear()

    def clear(self) -> None:
        """Forget all events."""
        self._events: list[MapEvent | None] = [None] * self.capacity
        self._next = 0  # the number of events ever added
        self.latitude: NDArray[np.float64] = np.zeros(self.capacity)
        self.longitude: NDArray[np.float64] = np.zeros(self.capacity)
        self.severity: NDArray[np.uint8] = np.zeros(self.capacity, np.uint8)
        self._codes: NDArray[np.uint16] = np.zeros((3, self.capacity), np.uint16)
        self.version += 1

    def __len__(self) -> int:
        return min(self._next, self.capacity)

    def __getitem__(self, at: int) -> MapEvent:
        event = self._events[at]
        if event is None:
            raise IndexError(at)
        return event

    def add(self, events: Sequence[MapEvent]) -> None:
        """Add events; the oldest make room."""
        for event in events:
            at = self._next % self.capacity
            self._events[at] = event
            self.latitude[at], self.longitude[at] = event.latitude, event.longitude
            self.severity[at] = SEVERITIES.index(event.severity) if event.severity in SEVERITIES else 0
            self._codes[:, at] = (
                self.types.code(event.event), self.fleets.code(event.fleet), self.senders.code(event.sender)
            )  # fmt: skip
            self._next += 1
        self.version += 1

    def bounds(self) -> Bounds:
        """Return the corners between which all events lie; the ring must not be empty."""
        latitude, longitude = self.latitude[: len(self)], self.longitude[: len(self)]
        south_west = float(latitude.min()), float(longitude.min())
        return south_west, (float(latitude.max()), float(longitude.max()))

    def matching(self, wanted: Filter) -> NDArray[np.intp]:
        """Return the places of the events that pass the filter."""
        mask = np.ones(len(self), bool)
        columns = ((self.types, wanted.types), (self.fleets, wanted.fleets), (self.senders, wanted.senders))
        for row, (names, chosen) in enumerate(columns):
            if chosen:
                mask &= np.isin(self._codes[row, : len(self)], [names.code(name) for name in chosen])
        if wanted.severities:
            mask &= np.isin(self.severity[: len(self)], [SEVERITIES.index(name) for name in wanted.severities])
        return np.flatnonzero(mask)

    def newest(self, places: NDArray[np.intp], most: int) -> Iterator[int]:
        """Yield the places of the newest of these events, the newest first."""
        age = (self._next - 1 - places) % self.capacity
        yield from (int(at) for at in places[np.argsort(age, kind="stable")[:most]])
