"""Times between text and microseconds since the epoch (UTC)."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - text without a zone is what is wanted
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d", re.ASCII)
_SPELLINGS = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|[+-]00:?00)", re.ASCII
)  # the contract's own is YYYY-MM-DDTHH:MM:SS.SSSSSS+0000; these name the same instants


@lru_cache(maxsize=65_536)
def _minute_us(text: str) -> int:
    """`YYYY-MM-DDTHH:MM` in µs; ValueError if there is no such minute. Cached: a day has 1,440 of them."""
    if not _MINUTE.fullmatch(text):
        raise ValueError(text)
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def parse(text: str) -> int:
    """A time in UTC, in the contract's format or another spelling of it, in µs; ValueError otherwise."""
    if len(text) == 31 and text[16] == ":" and text[19] == "." and text[26:] == "+0000" and text.isascii():
        digits = text[17:19] + text[20:26]
        if digits < "60" and digits.isdigit():
            return _minute_us(text[:16]) + int(digits)
    return _parse_any(text)


def _parse_any(text: str) -> int:
    match = _SPELLINGS.fullmatch(text)
    if match is None or match[2] >= "60":
        raise ValueError(text)
    return _minute_us(match[1]) + int(match[2]) * 1_000_000 + int((match[3] or "").ljust(6, "0"))


@lru_cache(maxsize=65_536)
def minute_text(minute: int) -> str:
    """A minute since the epoch as `YYYY-MM-DDTHH:MM`."""
    return (_EPOCH + timedelta(minutes=minute)).isoformat()[:16]


def rfc3339(us: int) -> str:
    """µs since the epoch as RFC 3339 in UTC with microseconds."""
    minute, rest = divmod(us, 60_000_000)
    return f"{minute_text(minute)}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}Z"


def canonical(text: str, us: int) -> str:
    """The same as `rfc3339(us)`, made from the text that `parse` took for `us`."""
    return text[:26] + "Z" if len(text) == 31 else rfc3339(us)
