"""Times by the column: text in the contract's format to microseconds, and back to RFC 3339."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.column_types import Int64s

#: The contract's format ("Timestamp Format"), digits as zeros.
_PATTERN = "0000-00-00T00:00:00.000000+0000"
_LENGTH = len(_PATTERN)
_PATTERN_BYTES = np.frombuffer(_PATTERN.encode(), np.uint8)
_DIGIT_COLUMNS = np.flatnonzero((ord("0") == _PATTERN_BYTES) & (np.arange(_LENGTH) < _PATTERN.index("+")))
_OTHER_COLUMNS = np.setdiff1d(np.arange(_LENGTH), _DIGIT_COLUMNS)
_NOT_A_TIME = "?" * _LENGTH


def _weights() -> npt.NDArray[np.float64]:
    """Return what each of the 20 digits adds to year, month, day, hour, minute, second and microsecond."""
    weights = np.zeros((20, 7))
    place = 0
    for number, digits in enumerate((4, 2, 2, 2, 2, 2, 6)):
        for power in reversed(range(digits)):
            weights[place, number] = 10**power
            place += 1
    return weights


_WEIGHTS = _weights()


def parse(texts: Sequence[str]) -> tuple[Int64s, list[int]]:
    """Parse each text into µs since the epoch; also return the positions of those that could not be read.

    Reads the contract's own format only: `schemas.times.parse` decides on the others.
    """
    if set(map(len, texts)) != {_LENGTH}:
        texts = [text if len(text) == _LENGTH else _NOT_A_TIME for text in texts]
    letters = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8).reshape(-1, _LENGTH)
    digits = letters[:, _DIGIT_COLUMNS] - np.uint8(ord("0"))  # other characters wrap around to more than nine
    written = (digits <= 9).all(axis=1) & (letters[:, _OTHER_COLUMNS] == _PATTERN_BYTES[_OTHER_COLUMNS]).all(axis=1)
    year, month, day, hour, minute, second, micro = (digits.astype(np.float64) @ _WEIGHTS).astype(np.int64).T
    months = (year - 1970) * 12 + month - 1
    first = _days(months)
    exists = (month >= 1) & (month <= 12) & (day >= 1) & (day <= _days(months + 1) - first)
    exists &= (hour < 24) & (minute < 60) & (second < 60) & (year > 0)
    us = (((first + day - 1) * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + micro
    return us, np.flatnonzero(~(written & exists)).tolist()


def _days(months: Int64s) -> Int64s:
    """Return the days from the epoch to the first day of a month, itself counted from the epoch (Gregorian)."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def rfc3339_texts(us: Int64s) -> list[str]:
    """Format each time as `schemas.times.rfc3339` does."""
    texts: list[str] = np.datetime_as_string(us.astype("datetime64[us]"), unit="us", timezone="UTC").tolist()
    return texts
