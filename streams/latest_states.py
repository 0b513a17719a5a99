"""The newest event of each device of one partition, by device time: what `telematics.device.latest.v1` carries. Pure.

Only the times are kept, so that a late event, or one that is processed again, never moves a state back. Another event
of the same instant does not replace the first.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from runtime.kafka.record_format import NO_HEADERS, Records, encode_records
from schemas import times
from schemas.column_types import Int64s

_encode_lines = msgspec.json.Encoder().encode_lines
_NEVER_US = -(2**63)


class _Time(msgspec.Struct, gc=False):
    device_time: str


_decode = msgspec.json.Decoder(_Time).decode


class LatestStates:
    """The device time of each device's published state."""

    def __init__(self) -> None:
        self._device_us: dict[str, int] = {}  # by IMEI

    def __len__(self) -> int:
        return len(self._device_us)

    def find_newer(self, imeis: Sequence[str], device_us: Int64s) -> list[int]:
        """Return the positions of the devices' newest events, in order, that are newer than the devices' states.

        In ascending order of time, and of equal times in descending order of position, the last one of a device counts.
        """
        positions = (len(imeis) - 1 - np.argsort(device_us[::-1], kind="stable")).tolist()
        newest = dict(zip(map(imeis.__getitem__, positions), positions, strict=True))
        known, times_us = self._device_us, device_us.tolist()
        return sorted(at for imei, at in newest.items() if times_us[at] > known.get(imei, _NEVER_US))

    def update(self, newer_us: Mapping[str, int]) -> None:
        """Take over the device times of states that have been published, by IMEI."""
        self._device_us.update(newer_us)

    def restore(self, imei: str, value: bytes | None) -> None:
        """Take over a record of the topic; one without a value removes the state."""
        if value is None:
            self._device_us.pop(imei, None)
        else:
            self._device_us[imei] = times.parse(_decode(value).device_time)


def encode_states(states: Sequence[Any], written_ms: int) -> Records:
    """Encode states (`schemas.device_latest.DeviceLatest`), each the only one of its device; there is at least one."""
    values = _encode_lines(states).split(b"\n")[:-1]  # a third of the time of one by one
    keys = [state.imei.encode() for state in states]
    return encode_records(keys, values, np.full(len(states), written_ms), repeat(NO_HEADERS))
