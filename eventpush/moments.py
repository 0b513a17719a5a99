"""Times on the command line: RFC 3339 text to µs since the epoch."""

from datetime import UTC, datetime
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
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time like 2026-11-24T02:14:00Z", param, ctx)
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return int(aware.timestamp() * 1_000_000)
