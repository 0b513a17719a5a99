"""The fleet: vehicles that drive and report. Pure and seeded: equal arguments give equal bytes on any machine.

Device times begin on a fixed day and carry the seed in their microseconds. So no two seeds (below a million) generate
the same event, a second run with the same seed adds nothing, and a longer run begins with the shorter one.
"""

import json
import math
from collections.abc import Callable, Iterator
from enum import Enum
from random import Random
from typing import Any, NamedTuple

from eventpush.simulation.places import CITIES, City
from schemas import times
from schemas.event_types import TYPES, EventType

Identity = tuple[str, int, str, str | None]  # IMEI, Device_Time in µs, Event, Geofence_Name


class ExpectedOutcome(Enum):
    """What should happen to an event."""

    VALID = "valid"  # a row and a message
    REPEAT = "repeat"  # of a valid one: dropped
    CONFLICT = "conflict"  # with a valid one: a dead letter
    INVALID = "invalid"  # a dead letter


class PlannedEvent(NamedTuple):
    """An event to send; events of one device are sent in this order."""

    imei: str  # the device's, even if the one in the body is broken
    body: bytes
    expected_outcome: ExpectedOutcome
    identity: Identity  # of the valid event that it is, repeats or conflicts with


class Shares(NamedTuple):
    """The share of events of each kind (0 to 1); the rest are valid and new."""

    repeated: float = 0.03
    invalid: float = 0.01
    conflicting: float = 0.005
    unknown_type: float = 0.01  # a type and a field unknown to the contract; valid nevertheless
    same_instant: float = 0.01  # of the overspeeds: followed by an SOS at the same instant
    late: float = 0.02  # of the devices: they buffer for hours and deliver many events at once
    out_of_order: float = 0.02


class _Draft(NamedTuple):
    """A valid event before it is serialised."""

    imei: str
    event: str
    changes: int
    device_us: int
    server_us: int
    latitude: float
    longitude: float
    location: str  # this and the next as JSON
    geofence: str
    geofence_name: str | None

    @property
    def identity(self) -> Identity:
        return self.imei, self.device_us, self.event, self.geofence_name


class _CityTexts(NamedTuple):
    """A city with its texts as JSON."""

    city: City
    locations: tuple[str, ...]
    geofences: tuple[tuple[str, str], ...]


_CITY_TEXTS = tuple(
    _CityTexts(
        city,
        tuple(json.dumps(f"{street}, {city.address}", ensure_ascii=False) for street in city.streets),
        tuple((name, json.dumps(name, ensure_ascii=False)) for name in city.geofences),
    )
    for city in CITIES
)

_FIRST_DAY_US = 1_719_532_800_000_000  # 2024-06-28, the day of the contract's sample
_TACS = ("35061207", "86438504", "35759108", "86907203")
_STEP_MAX_S = 15
_LATE_BURST = 20  # events that a late device delivers at once
_LATE_US = 6 * 3_600_000_000
_RECENT_MAX = 512  # valid events that may be repeated or conflicted with
_KM_PER_DEGREE = 111.32
_RADIUS_DEGREES = 0.15

#: The types that a fleet reports, the most frequent first, each as often as its share.
_SIMULATED = sorted(
    ((name, kind) for name, kind in TYPES.items() if kind.simulated_share), key=lambda item: -item[1].simulated_share
)
_WEIGHTED = tuple(item for item in _SIMULATED for _ in range(item[1].simulated_share))
_UNKNOWN = ("harsh_braking", EventType("other", "info", "", "", (1, 9)))


class _Vehicle:
    """A vehicle on the road."""

    __slots__ = ("heading", "held", "imei", "late", "latitude", "longitude", "place", "speed_kmh", "time_us")

    def __init__(self, imei: str, place: _CityTexts, time_us: int, random: Callable[[], float], *, late: bool) -> None:
        self.imei = imei
        self.place = place
        self.late = late
        self.time_us = time_us
        self.latitude = place.city.latitude + (random() - 0.5) * _RADIUS_DEGREES
        self.longitude = place.city.longitude + (random() - 0.5) * _RADIUS_DEGREES
        self.heading = random() * math.tau
        self.speed_kmh = 20 + 70 * random()
        self.held: list[PlannedEvent] = []

    def drive(self, random: Callable[[], float]) -> None:
        """Drive for some seconds; far from the city, turn back."""
        seconds = 1 + int(random() * _STEP_MAX_S)
        self.time_us += seconds * 1_000_000
        city = self.place.city
        north, east = city.latitude - self.latitude, city.longitude - self.longitude
        if abs(north) > _RADIUS_DEGREES or abs(east) > _RADIUS_DEGREES:
            self.heading = math.atan2(east, north)
        else:
            self.heading += (random() - 0.5) * 0.6
        degrees = self.speed_kmh / 3_600 * seconds / _KM_PER_DEGREE
        self.latitude += degrees * math.cos(self.heading)
        self.longitude += degrees * math.sin(self.heading) / math.cos(math.radians(self.latitude))


def generate(seed: int, devices: int, shares: Shares = Shares()) -> Iterator[PlannedEvent]:  # noqa: B008 - immutable
    """Generate the events of a fleet of `devices`, endlessly.

    A device's time advances by 8 s per event on average; ten million events of one device would reach the future.
    """
    random = Random(seed).random
    fleet = [_device(seed, index, random, shares) for index in range(devices)]
    recent: list[_Draft] = []
    made = 0
    while True:
        draw = random()
        if draw < shares.repeated + shares.conflicting and recent:
            draft = recent[int(random() * len(recent))]
            yield _repeat(draft, random) if draw < shares.repeated else _conflict(draft)
            continue
        device = fleet[int(random() * devices)]
        device.drive(random)
        if draw > 1 - shares.invalid:
            yield _invalid(_draft(device, random, _WEIGHTED[0]), random)
            continue
        for draft, event in _valid(device, random, shares):
            if device.late or random() < shares.out_of_order:
                device.held.append(event)
                continue
            yield event
            _add_recent(recent, draft, made)
            made += 1
            yield from device.held  # older events after the newer one
            device.held.clear()
        if device.late and len(device.held) >= _LATE_BURST:
            yield from device.held
            device.held.clear()


def _valid(device: _Vehicle, random: Callable[[], float], shares: Shares) -> Iterator[tuple[_Draft, PlannedEvent]]:
    """Yield what the device reports at this instant: usually one event."""
    if random() < shares.unknown_type:
        draft, extra = _draft(device, random, _UNKNOWN), f',"Odometer":{device.time_us // 1_000_000 % 1_000_000}'
    else:
        draft, extra = _draft(device, random, _WEIGHTED[int(random() * len(_WEIGHTED))]), ""
    yield draft, PlannedEvent(draft.imei, _body(draft, extra), ExpectedOutcome.VALID, draft.identity)
    if draft.event == "overspeed" and random() < shares.same_instant:
        draft = draft._replace(event="sos", changes=1)
        yield draft, PlannedEvent(draft.imei, _body(draft), ExpectedOutcome.VALID, draft.identity)


def _add_recent(recent: list[_Draft], draft: _Draft, made: int) -> None:
    if len(recent) < _RECENT_MAX:
        recent.append(draft)
    else:
        recent[made % _RECENT_MAX] = draft


def _device(seed: int, index: int, random: Callable[[], float], shares: Shares) -> _Vehicle:
    serial = (seed * 1_000 + index) % 1_000_000
    begin_us = _FIRST_DAY_US + seed % 1_000_000 + int(random() * 3_600) * 1_000_000
    tac = _TACS[(seed // 1_000 + index // 1_000_000) % len(_TACS)]
    place = _CITY_TEXTS[index % len(_CITY_TEXTS)]
    return _Vehicle(with_check_digit(f"{tac}{serial:06d}"), place, begin_us, random, late=random() < shares.late)


def with_check_digit(digits: str) -> str:
    """Append the check digit that makes 14 digits an IMEI (Luhn, 3GPP TS 23.003 annex B)."""
    doubled = [int(d) * (2 if i % 2 else 1) for i, d in enumerate(digits)]
    return digits + str(-sum(n // 10 + n % 10 for n in doubled) % 10)


def _draft(device: _Vehicle, random: Callable[[], float], simulated: tuple[str, EventType]) -> _Draft:
    event, kind = simulated
    least, most = kind.changes_range
    place = device.place
    delay_us = _LATE_US if device.late else 200_000 + int(random() * 3_000_000)
    name, text = place.geofences[int(random() * len(place.geofences))] if kind.has_geofence else (None, "null")
    location = place.locations[int(device.time_us // 60_000_000) % len(place.locations)]
    return _Draft(
        device.imei,
        event,
        least + int(random() * (most - least + 1)),
        device.time_us,
        device.time_us + delay_us,
        device.latitude,
        device.longitude,
        location,
        text,
        name,
    )


def _body(draft: _Draft, extra: str = "") -> bytes:
    """Serialise the event as the contract's JSON."""
    return (
        f'{{"Event":"{draft.event}","Changes":{draft.changes},"Device_Time":"{_time(draft.device_us)}",'
        f'"IMEI":"{draft.imei}","Server_Time":"{_time(draft.server_us)}",'
        f'"Coordinates":"{draft.latitude:.6f},{draft.longitude:.6f}","Location":{draft.location},'
        f'"Geofence_Name":{draft.geofence}{extra}}}'
    ).encode()


def _time(us: int) -> str:
    """Format a time as the contract does."""
    return times.rfc3339(us)[:-1] + "+0000"


def _repeat(draft: _Draft, random: Callable[[], float]) -> PlannedEvent:
    """Repeat an event; the platform may have stamped it again."""
    if random() < 0.3:
        draft = draft._replace(server_us=draft.server_us + 1_000_000 + int(random() * 30_000_000))
    return PlannedEvent(draft.imei, _body(draft), ExpectedOutcome.REPEAT, draft.identity)


def _conflict(draft: _Draft) -> PlannedEvent:
    """Make an event of the same identity with different content."""
    return PlannedEvent(
        draft.imei, _body(draft._replace(changes=draft.changes + 100)), ExpectedOutcome.CONFLICT, draft.identity
    )


def _invalid(draft: _Draft, random: Callable[[], float]) -> PlannedEvent:
    fields = json.loads(_body(draft))
    _BREAKAGES[int(random() * len(_BREAKAGES))](fields)
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return PlannedEvent(draft.imei, body, ExpectedOutcome.INVALID, draft.identity)


def _several(fields: dict[str, Any]) -> None:
    fields.update(Event="", IMEI=fields["IMEI"][:14], Coordinates="north,east", Changes="fifty")


#: Each breaks at least one rule but keeps the device time, so that no two bodies are equal.
_BREAKAGES: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda fields: fields.update(IMEI=fields["IMEI"][:14]),
    lambda fields: fields.update(IMEI="IMEI" + fields["IMEI"][4:]),
    lambda fields: fields.update(Coordinates="91.5,200.25"),
    lambda fields: fields.update(Coordinates=fields["Coordinates"].replace(",", ";")),
    lambda fields: fields.update(Changes="fifty"),
    lambda fields: fields.update(Changes=1.5),
    lambda fields: fields.update(Event="   "),
    lambda fields: fields.update(Server_Time="2024-01-01T00:00:00.000000+0000"),
    lambda fields: fields.update(Server_Time="28.06.2024 18:49"),
    lambda fields: fields.update(Device_Time=fields["Device_Time"].replace("+0000", "+0530")),
    lambda fields: fields.pop("Event"),
    lambda fields: fields.update(Location=7),
    _several,
)
