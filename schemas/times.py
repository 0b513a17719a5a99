"""Times between text and microseconds since the epoch (UTC)."""

import re
from datetime import UTC, datetime
from functools import lru_cache

_SPELLINGS = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|[+-]00:?00)", re.ASCII
)  # the contract's own is YYYY-MM-DDTHH:MM:SS.SSSSSS+0000; these name the same instants


@lru_cache(maxsize=4096)
def _minute_us(text: str) -> int:
    """`YYYY-MM-DDTHH:MM` in µs; ValueError if there is no such minute. Cached: a batch shares few minutes."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def parse(text: str) -> int:
    """A time in UTC, in the contract's format or another spelling of it, in µs; ValueError otherwise."""
    if len(text) == 31 and text[16] == ":" and text[19] == "." and text[26:] == "+0000" and text.isascii():
        digits = text[17:19] + text[20:26]
        if digits.isdigit() and digits < "60" and text[4::3][:2] == "--":
            return _minute_us(text[:16]) + int(digits)
    return _parse_any(text)


def _parse_any(text: str) -> int:
    match = _SPELLINGS.fullmatch(text)
    if match is None or match[2] >= "60":
        raise ValueError(text)
    return _minute_us(match[1]) + int(match[2]) * 1_000_000 + int((match[3] or "").ljust(6, "0"))


@lru_cache(maxsize=4096)
def _minute_text(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M") if minute >= 0 else ""


def local(us: int) -> str:
    """µs since the epoch (not negative) as `YYYY-MM-DDTHH:MM:SS.ffffff`, without a zone."""
    minute, rest = divmod(us, 60_000_000)
    return f"{_minute_text(minute)}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}"


def rfc3339(us: int) -> str:
    """µs since the epoch (not negative) as RFC 3339 in UTC with microseconds."""
    return local(us) + "Z"
