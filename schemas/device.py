"""A device's record in the registry, declared once: the value on `telematics.devices.v1`, keyed by IMEI.

A record holds the device's whole history, so compaction, which keeps the newest record of a key, loses none of it
(docs/decisions/0027-a-record-holds-the-devices-history.md).
"""

from collections.abc import Callable
from typing import Annotated

import msgspec

VEHICLE, FLEET, DRIVER = (
    "the vehicle that carries the device", "the fleet that the vehicle belongs to", "the vehicle's driver"
)  # fmt: skip
VALID_FROM = "first moment, RFC 3339 in UTC with microseconds; null: from the beginning"
VALID_TO = "end, not included; null: until further notice"

#: How times are written: all of one width, so that they compare as texts.
_TIME = msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$")


class Interval(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What holds for a device in a period; None for what is not known."""

    vehicle: Annotated[str | None, msgspec.Meta(description=VEHICLE)] = None
    fleet: Annotated[str | None, msgspec.Meta(description=FLEET)] = None
    driver: Annotated[str | None, msgspec.Meta(description=DRIVER)] = None
    valid_from: Annotated[Annotated[str, _TIME] | None, msgspec.Meta(description=VALID_FROM)] = None
    valid_to: Annotated[Annotated[str, _TIME] | None, msgspec.Meta(description=VALID_TO)] = None


class Device(msgspec.Struct, frozen=True, gc=False):
    """What is known of a device; None for what is not."""

    vehicle: Annotated[str | None, msgspec.Meta(description=VEHICLE)] = None
    fleet: Annotated[str | None, msgspec.Meta(description=FLEET)] = None
    driver: Annotated[str | None, msgspec.Meta(description=DRIVER)] = None
    intervals: Annotated[
        tuple[Interval, ...] | None,
        msgspec.Meta(
            description="what held when, in order and without overlap; null: what stands above, at any time. "
            "Otherwise what stands above held when the record was written"
        ),
    ] = None

    @property
    def history(self) -> tuple[Interval, ...]:
        """Its intervals, in order: one without bounds where the record names none."""
        return (Interval(self.vehicle, self.fleet, self.driver),) if self.intervals is None else self.intervals

    def at(self, moment: str) -> "Device | Interval":
        """Return what holds at a moment, RFC 3339 in UTC with microseconds."""
        if self.intervals is None:
            return self
        for interval in reversed(self.intervals):
            if interval.valid_from is None or interval.valid_from <= moment:
                return interval if interval.valid_to is None or moment < interval.valid_to else UNKNOWN_DEVICE
        return UNKNOWN_DEVICE

    def without_drivers(self, is_erased: Callable[[str | None], bool]) -> "Device":
        """Return the device with null for drivers that were erased, at any time; itself where there are none."""
        intervals = self.intervals
        if intervals is not None and any(is_erased(interval.driver) for interval in intervals):
            intervals = tuple(
                msgspec.structs.replace(interval, driver=None) if is_erased(interval.driver) else interval
                for interval in intervals
            )
        if intervals is self.intervals and not is_erased(self.driver):
            return self
        return Device(self.vehicle, self.fleet, None if is_erased(self.driver) else self.driver, intervals)


UNKNOWN_DEVICE = Device()

#: Bound of a name, in characters.
NAME_MAX = 256

#: Bound of a device's intervals: a record of as many, with the longest names, fits into the topic's records (4 MiB).
INTERVALS_MAX = 1_000
