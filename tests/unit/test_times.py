"""Times between text and microseconds."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import times

moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


@given(moments)
def test_the_contracts_format_is_read_exactly(moment: datetime) -> None:
    """Every microsecond since 1970 survives the way from text to number and back."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
    us = times.parse(text)
    assert datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000) == moment
    assert times.rfc3339(us) == text[:26] + "Z"
    assert times.as_sent(us) == text


@pytest.mark.parametrize(
    "text",
    [
        "2024-06-28T17:52:13Z",
        "2024-06-28T17:52:13+00:00",
        "2024-06-28T17:52:13.000+0000",
        "2024-06-28T17:52:13.000000Z",
        "2024-06-28T17:52:13.000000-00:00",
        "2024-06-28T17:52:13.000000999Z",
    ],
)
def test_other_spellings_of_utc_name_the_same_instant(text: str) -> None:
    """An instant is the same whatever its spelling, and is written in one way."""
    us = times.parse(text)
    assert us == times.parse("2024-06-28T17:52:13.000000+0000")
    assert times.rfc3339(us) == "2024-06-28T17:52:13.000000Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-06-28 17:52:13.000000+0000",
        "2024-06-28T17:52:13.000000+0530",
        "2024-06-28T17:52:13.000000",
        "2024-06-28T17:52:60.000000+0000",
        "2024-06-28T24:00:00.000000+0000",
        "2024-02-30T17:52:13.000000+0000",
        "2024-06-28T17:52:13.00000x+0000",
        "2024-06-28T17:52:13.0000000000+0000",
        "2024-06-28T17:52:13.+0000",
        "2024-W26-5T17:52:13.000000+0000",
        "٢٠٢٤-06-28T17:52:13.000000+0000",
        "28/06/2024 17:52:13",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """What is not a time in UTC in that format is an error, never a guess."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the text itself
        times.parse(text)
