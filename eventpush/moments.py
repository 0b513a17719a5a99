"""Times on the command line: RFC 3339 text to µs since the epoch, and lengths of time before now."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click


class Moment(click.ParamType):
    """A time in RFC 3339; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the time in µs since the epoch."""
        if isinstance(value, int):
            return value
        try:
            return microseconds(value)
        except ValueError:
            self.fail(f"{value!r} is not a time like 2026-11-24T02:14:00Z", param, ctx)


def microseconds(text: str) -> int:
    """Read a date or time in ISO 8601, UTC unless it has an offset, as µs since the epoch; raise ValueError."""
    moment = datetime.fromisoformat(text)
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // timedelta(microseconds=1)


class Ago(click.ParamType):
    """A length of time before now, such as `10m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the length in seconds."""
        if isinstance(value, int):
            return value
        match = _LENGTH.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is not a length of time like 30s, 10m, 2h or 7d", param, ctx)
        return int(match[1]) * _UNITS_S[match[2]]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LENGTH = re.compile(r"([1-9]\d{0,8})([smhd])")
