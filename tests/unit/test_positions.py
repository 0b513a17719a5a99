"""Positions: a column is parsed as each of its texts is by itself."""

import math

from hypothesis import given
from hypothesis import strategies as st

from schemas import positions

_NUMBERS = st.from_regex(r"[ -]?[0-9]{0,4}\.?[0-9]{0,20} ?", fullmatch=True) | st.sampled_from(
    ["-0", "-0.0", "0", "1-"]
)
_PLAIN = st.builds("{:f},{:f}".format, st.floats(-90, 90), st.floats(-180, 180))
_TEXTS = _PLAIN | st.builds("{},{}".format, _NUMBERS, _NUMBERS) | st.text("0123456789.,- ][e+", max_size=12)


def _alone(text: str) -> tuple[float, float]:
    try:
        return positions.parse(text)
    except ValueError:
        return math.nan, math.nan


@given(st.lists(_TEXTS, max_size=120))
def test_a_column_is_parsed_as_its_texts(texts: list[str]) -> None:
    """Values, the sign of zero, and which texts cannot be read are those of `parse`."""
    latitudes, longitudes, unread = positions.parse_column(texts)
    expected = [_alone(text) for text in texts]
    found = list(zip(latitudes.tolist(), longitudes.tolist(), strict=True))
    assert [repr(position) for position in found] == [repr(position) for position in expected]
    assert unread == [at for at, (latitude, _) in enumerate(expected) if math.isnan(latitude)]
