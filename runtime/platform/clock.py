"""A clock that cannot jump, and how far other clocks may differ from ours."""

import time
from collections.abc import Callable

from runtime.platform.settings import Settings
from schemas.validation import ClockLimits

#: Goes on while the machine is suspended, where the system has such a clock (Linux).
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_clock() -> Callable[[], int]:
    """Return a clock (µs since the epoch, UTC) that starts at the wall clock and then ignores its adjustments."""
    offset_us = _wall_us() - _steady_us()
    return lambda: offset_us + _steady_us()


def clock_limits(settings: Settings) -> ClockLimits:
    """Return how far a sender's clock may be ahead of ours with these settings."""
    return ClockLimits.of_seconds(settings.future_skew_s, settings.clock_lead_max_s)


def _wall_us() -> int:
    return time.time_ns() // 1000


def _steady_us() -> int:
    return time.clock_gettime_ns(_STEADY) // 1000
