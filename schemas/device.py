"""A device's record in the registry, declared once: the value on `telematics.devices.v1`, keyed by IMEI."""

from typing import Annotated

import msgspec


class Device(msgspec.Struct, frozen=True, gc=False):
    """What is known of a device; None for what is not."""

    vehicle: Annotated[str | None, msgspec.Meta(description="the vehicle that carries the device")] = None
    fleet: Annotated[str | None, msgspec.Meta(description="the fleet that the vehicle belongs to")] = None
    driver: Annotated[str | None, msgspec.Meta(description="the vehicle's driver")] = None


UNKNOWN_DEVICE = Device()

#: Bound of a name, in characters.
NAME_MAX = 256
