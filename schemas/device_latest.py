"""The latest state of a device, declared once: the value on `telematics.device.latest.v1`, keyed by IMEI."""

from operator import attrgetter
from typing import Any, get_type_hints

import msgspec

from schemas.event import Event

#: The fields of the device's newest event that make up its state, under the same names.
_FIELDS = ("imei", "device_time", "event_id", "event", "category", "severity", "latitude", "longitude", "location",
           "received_at")  # fmt: skip

_DECLARED = get_type_hints(Event, include_extras=True)

#: The newest event of a device by `device_time`, as far as it describes the device's state.
DeviceLatest: Any = msgspec.defstruct(
    "DeviceLatest", [(name, _DECLARED[name]) for name in _FIELDS], gc=False, frozen=True
)


_values_of = attrgetter(*_FIELDS)


def state_of(event: Event) -> Any:
    """Return the state of the event's device, given that the event is its newest."""
    return DeviceLatest(*_values_of(event))
