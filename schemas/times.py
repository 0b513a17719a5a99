"""Times between text and microseconds since the epoch (UTC)."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - text without a zone is what is wanted
#: The contract's format is YYYY-MM-DDTHH:MM:SS.SSSSSS+0000 ("Timestamp Format"); these name the same instants.
_SPELLINGS = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)(?:\.(\d{1,6})(\d{0,3}))?(?:Z|[+-]00:?00)", re.ASCII)
_MICROSECONDS_END = len("2024-06-28T17:52:13.000000")

FORMAT = "YYYY-MM-DDTHH:MM:SS.SSSSSS+0000"


class NoSuchTimeError(ValueError):
    """The text is well written, but there is no such date or time of day."""


@lru_cache(maxsize=65_536)
def _minute_us(text: str) -> int:
    """Parse `YYYY-MM-DDTHH:MM` into µs; raise `NoSuchTimeError`. Cached: a day has 1,440 of them."""
    if text[11:13] == "24":  # midnight of the next day to Python 3.14 and newer, and no time to older ones
        raise NoSuchTimeError(text)
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        raise NoSuchTimeError(text) from None


def parse(text: str) -> int:
    """Parse a time in UTC into µs since the epoch; digits beyond microseconds are cut.

    Accepts one to nine fraction digits or none, and `Z`, `+0000`, `+00:00`, `-00:00`. Raise ValueError for another
    format, `NoSuchTimeError` for a date or time of day that does not exist (leap seconds included).
    """
    match = _SPELLINGS.fullmatch(text)
    if match is None:
        raise ValueError(text)
    if match[2] >= "60":
        raise NoSuchTimeError(text)
    return _minute_us(match[1]) + int(match[2]) * 1_000_000 + int((match[3] or "").ljust(6, "0"))


def is_cut(text: str) -> bool:
    """Return whether `parse` drops digits that are not zero."""
    if not text[_MICROSECONDS_END : _MICROSECONDS_END + 1].isdigit():
        return False
    match = _SPELLINGS.fullmatch(text)
    return match is not None and bool((match[4] or "").strip("0"))


@lru_cache(maxsize=65_536)
def minute_text(minute: int) -> str:
    """Format a minute since the epoch as `YYYY-MM-DDTHH:MM`."""
    return (_EPOCH + timedelta(minutes=minute)).isoformat()[:16]


def rfc3339(us: int) -> str:
    """Format µs since the epoch as RFC 3339 in UTC with microseconds."""
    minute, rest = divmod(us, 60_000_000)
    return f"{minute_text(minute)}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}Z"


def as_sent(us: int) -> str:
    """Format µs since the epoch in the contract's format."""
    return rfc3339(us)[:-1] + "+0000"
