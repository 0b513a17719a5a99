"""Expressions that choose events."""

import contextlib

import pytest

from eventpush.filters import FilterError, filter_of

FIELDS = ["event", "severity", "fleet", "changes", "extra", "warnings"]
EVENT = {
    "event": "sos", "severity": "critical", "fleet": None, "changes": 7, "extra": {"battery": 12}, "warnings": ["a"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('severity == "critical"', True),
        ('severity == "critical" and fleet == "north"', False),
        ('severity == "info" or changes >= 7', True),
        ('not (event == "sos")', False),
        ('event in ["sos", "power_cut"]', True),
        ('"a" in warnings', True),
        ("fleet == None", True),
        ("extra.battery < 20", True),
        ('extra["battery"] < 20', True),
        ("extra.missing < 20", False),
        ("fleet > 3", False),
        ("changes / 0 == 1", False),
        ('event[:2] == "so"', True),
        ("changes * 2 - 1 == 13", True),
    ],
)
def test_an_expression_chooses_an_event(text: str, chosen: bool) -> None:
    """Comparisons, logic, membership, arithmetic, unknown fields; what has no value does not choose."""
    assert filter_of(text, FIELDS)(EVENT) is chosen


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('flet == "north"', "no field flet; fields are event, severity"),
        ("severity = 'critical'", "is not an expression"),
        ("severity ==", "is not an expression"),
        ("", "is not an expression"),
        ('__import__("os")', "no field __import__"),
        ("event.lower() == 'sos'", "calls no functions"),
        ("9 ** 9 ** 9 > changes", "compares fields with values"),
        ("'%999999999d' % changes == event", "compares fields with values"),
        ("f'{changes:999999999}' == event", "compares fields with values"),
        ("[event for event in warnings] == 1", "compares fields with values"),
        ("(event := 1) == 1", "compares fields with values"),
        ("event == '" + "a" * 1_000 + "'", "at most 1,000 characters"),
        ("+".join(["changes"] * 100), "at most 100 names, values and operations"),
        ("not " * 200 + "event", "at most 100 names, values and operations"),
        ("-" * 999 + "1", "not an expression|at most 100"),
        ("(" * 500 + "1" + ")" * 499, "is not an expression"),
        ("\0", "is not an expression"),
    ],
)
def test_what_is_no_filter_is_refused_with_a_reason(text: str, why: str) -> None:
    """A misspelled field, a syntax error, a call, and what could take long, before anything is read."""
    with pytest.raises(FilterError, match=why):
        filter_of(text, FIELDS)


def test_the_largest_expression_is_evaluated() -> None:
    """Its depth stays within Python's."""
    assert filter_of("not " * 96 + 'event == "sos"', FIELDS)(EVENT)


@pytest.mark.parametrize("text", ["event.__class__ == 1", "extra.__class__.__mro__ == 1", "[x for x in warnings] == 1"])
def test_nothing_of_python_is_reachable(text: str) -> None:
    """Attributes of objects and comprehensions have no value."""
    with contextlib.suppress(FilterError):
        assert filter_of(text, [*FIELDS, "x"])(EVENT) is False
