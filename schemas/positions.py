"""Positions: "latitude,longitude" in decimal degrees (WGS 84), one at a time and by the column."""

import re
from collections.abc import Sequence

import numpy as np

from schemas.column_types import Float64s

#: No exponents, no `nan`, no `inf`, which `float` would read; blanks around a number are accepted.
_CHARACTERS = re.compile(r"[0-9., -]*")
_NOWHERE = float("nan")

FORMAT = '"latitude,longitude" in decimal degrees'


def parse(text: str) -> tuple[float, float]:
    """Parse into latitude and longitude in degrees, in any range; raise ValueError."""
    if not _CHARACTERS.fullmatch(text):
        raise ValueError(text)
    latitude, _, longitude = text.partition(",")
    return float(latitude), float(longitude)


def parse_column(texts: Sequence[str]) -> tuple[Float64s, Float64s, list[int]]:
    """Parse each text; return latitudes, longitudes, and which texts could not be read (NaN stands for those)."""
    latitudes: list[float] = []
    longitudes: list[float] = []
    unread: list[int] = []
    for at, text in enumerate(texts):
        latitude, _, longitude = text.partition(",")
        try:
            north, east = float(latitude), float(longitude)
        except ValueError:
            north = east = _NOWHERE
            unread.append(at)
        latitudes.append(north)
        longitudes.append(east)
    if not _CHARACTERS.fullmatch("".join(texts)):  # `float` may have read what is no decimal number
        for at, text in enumerate(texts):
            if not _CHARACTERS.fullmatch(text) and at not in unread:
                latitudes[at] = longitudes[at] = _NOWHERE
                unread.append(at)
    return np.array(latitudes, np.float64), np.array(longitudes, np.float64), unread
