"""Numbers and times as an operator reads them. Pure."""

from datetime import UTC, datetime

UNKNOWN = "–"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_UNITS = ((_DAY_S, "d", _HOUR_S, "h"), (_HOUR_S, "h", _MINUTE_S, "min"), (_MINUTE_S, "min", 1, "s"))


def count(number: float | None) -> str:
    """Return a whole number with thousands separated: 1,234,567."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def per_second(rate: float | None) -> str:
    """Return a rate: 0/s, 0.4/s, 1,234/s."""
    if rate is None:
        return UNKNOWN
    return f"{rate:,.1f}/s" if 0 < rate < 9.95 else f"{rate:,.0f}/s"


def milliseconds(seconds: float | None) -> str:
    """Return a duration below a few seconds: 12 ms."""
    return UNKNOWN if seconds is None else f"{seconds * 1_000:,.0f} ms"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units: 0.4 s, 3 min 12 s, 2 h 5 min, 4 d 1 h."""
    if seconds is None:
        return UNKNOWN
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    unit_s, unit, rest_s, rest = next(entry for entry in _UNITS if whole >= entry[0])
    units, over = divmod(whole, unit_s)
    return f"{units} {unit}" + (f" {over // rest_s} {rest}" if over // rest_s else "")


def moment(us: int | None) -> str:
    """Return a time to the second, in UTC: 2026-11-26 02:14:05 UTC."""
    return UNKNOWN if us is None else f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
