"""Positions: "latitude,longitude" in decimal degrees (WGS 84), one at a time and by the column."""

import re
from collections.abc import Sequence
from itertools import chain

import msgspec
import numpy as np

from schemas.column_types import Float64s

#: No exponents, no `nan`, no `inf`, which `float` would read; blanks around a number are accepted.
_CHARACTERS = re.compile(r"[0-9., -]*")
_NOWHERE = (float("nan"), float("nan"))
_PIECE_TEXTS = 50  # a text that is not plain costs those of its piece time, not all
_decode_pairs = msgspec.json.Decoder(list[tuple[float, float]]).decode

FORMAT = '"latitude,longitude" in decimal degrees'


def parse(text: str) -> tuple[float, float]:
    """Parse into latitude and longitude in degrees, in any range; raise ValueError."""
    if not _CHARACTERS.fullmatch(text):
        raise ValueError(text)
    latitude, _, longitude = text.partition(",")
    return float(latitude), float(longitude)


def parse_column(texts: Sequence[str]) -> tuple[Float64s, Float64s, list[int]]:
    """Parse each text; return latitudes, longitudes, and which texts could not be read (NaN stands for those)."""
    positions = np.empty((len(texts), 2), np.float64)
    for begin in range(0, len(texts), _PIECE_TEXTS):
        piece = texts[begin : begin + _PIECE_TEXTS]
        pairs = _parse_plain(piece) or list(map(_parse_or_nowhere, piece))
        numbers = np.fromiter(chain.from_iterable(pairs), np.float64, 2 * len(piece))
        positions[begin : begin + len(piece)] = numbers.reshape(-1, 2)
    unread = np.flatnonzero(np.isnan(positions[:, 0])).tolist()
    return positions[:, 0].copy(), positions[:, 1].copy(), unread


def _parse_plain(texts: Sequence[str]) -> list[tuple[float, float]] | None:
    """Parse texts that are, as nearly always, pairs of JSON's numbers, in a fifth of the time; None if one is not."""
    if not _CHARACTERS.fullmatch("".join(texts)):
        return None
    pairs = f"[[{'],['.join(texts)}]]"
    if "-0," in pairs or "-0]" in pairs:  # an integer to JSON, which has no sign at zero
        return None
    try:
        return _decode_pairs(pairs)
    except msgspec.DecodeError:
        return None


def _parse_or_nowhere(text: str) -> tuple[float, float]:
    try:
        return parse(text)
    except ValueError:
        return _NOWHERE
