"""The newest event of each device of one partition, by device time: what `telematics.device.latest.v1` carries. Pure.

Only the times are kept, so that a late event, or one that is processed again, never moves a state back. Another event
of the same instant does not replace the first.
"""

from collections.abc import Iterable
from itertools import repeat

import msgspec
import numpy as np

from runtime.kafka.record_format import NO_HEADERS, Records, encode_records
from schemas import times
from schemas.device_latest import state_of
from schemas.event import Event

#: By IMEI: device time in µs since the epoch, and the event.
Newer = dict[str, tuple[int, Event]]

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

    def find_newer(self, imeis: Iterable[str], device_us: Iterable[int], events: Iterable[Event], newer: Newer) -> None:
        """Put the events into `newer` that are newer than their device's state and than what is there."""
        known = self._device_us
        for imei, at_us, event in zip(imeis, device_us, events, strict=True):
            found = newer.get(imei)
            if at_us > (known.get(imei, _NEVER_US) if found is None else found[0]):
                newer[imei] = at_us, event

    def update(self, newer: Newer) -> None:
        """Take over what has been published."""
        self._device_us.update({imei: at_us for imei, (at_us, _) in newer.items()})

    def restore(self, imei: str, value: bytes | None) -> None:
        """Take over a record of the topic; one without a value removes the state."""
        if value is None:
            self._device_us.pop(imei, None)
        else:
            self._device_us[imei] = times.parse(_decode(value).device_time)


def states_of(newer: Newer, written_ms: int) -> Records:
    """Encode the states of devices; there is at least one."""
    states = [state_of(event) for _, event in newer.values()]
    values = _encode_lines(states).split(b"\n")[:-1]  # a third of the time of one by one
    return encode_records(list(map(str.encode, newer)), values, np.full(len(newer), written_ms), repeat(NO_HEADERS))
