"""Every rule is one: the check of a value, the check of a column and the published JSON Schema agree."""

from collections.abc import Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import SENT_FIELDS
from schemas.fields import SentField
from schemas.rules import TIME_RULES, EventTimes, Format, Rule
from schemas.sent_schema import event_schema, field_schema

TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("0123456789-+:.TZ, ", max_size=40),
    st.from_regex(r"[0-9]{15}\n?", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{1,3})?, ?-?[0-9]{1,3}", fullmatch=True),
    st.from_regex(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9](:[0-6][0-9]){2}(\.[0-9]{1,9})?(Z|[+-]00:?00)",
                  fullmatch=True),
    st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000").rjust(31, "0")),
    st.integers(50, 2100).map(lambda length: "x" * length),
    st.sampled_from(["", " ", "a\0b", "\ud83d", "\u200b", "SOS ", "🚒", "0,0", "90,180", "90.1,0", "1,2,3", "nan,1"]),
)  # fmt: skip
FIELDS = list(SENT_FIELDS.values())
RULES = [(field, rule) for field in FIELDS for rule in field.rules]
FORMATS = [field for field in FIELDS if field.format is not None]


def values_of(field: SentField) -> st.SearchStrategy[Any]:
    return TEXTS if field.type is str else st.integers() | st.integers(-(2**64), 2**64)


@pytest.mark.parametrize(("field", "rule"), RULES, ids=lambda part: getattr(part, "name", getattr(part, "code", "")))
@given(st.data())
def test_a_column_is_checked_as_its_values_are(field: SentField, rule: Rule, data: st.DataObject) -> None:
    """A column's suspects hold every value that breaks the rule, so what a column lets pass keeps it."""
    column = data.draw(st.lists(values_of(field), max_size=6))
    broken = [at for at, value in enumerate(column) if not rule.holds(value)]
    assert set(broken) <= set(rule.suspects(column))
    assert rule.broken_in(column) == broken


@pytest.mark.parametrize(("field", "rule"), RULES, ids=lambda part: getattr(part, "name", getattr(part, "code", "")))
@given(st.data())
def test_the_published_schema_says_the_rule(field: SentField, rule: Rule, data: st.DataObject) -> None:
    """What keeps the rule, the schema accepts; where the schema can say all of the rule, it refuses the rest."""
    value = data.draw(values_of(field))
    accepted = accepts(dict(rule.schema), value)
    if rule.holds(value):
        assert accepted
    elif rule.schema_is_exact:
        assert not accepted


@pytest.mark.parametrize("field", FORMATS, ids=lambda field: field.name)
@given(st.data())
def test_a_column_is_read_as_its_values_are(field: SentField, data: st.DataObject) -> None:
    """What a column's parser reads, it reads as the parser of one value does; it may leave the rest to that one."""
    form, column = field.format, data.draw(st.lists(TEXTS, min_size=1, max_size=6))
    assert isinstance(form, Format)
    parsed, unread = form.parse_column(column)
    rows = list(zip(*parsed, strict=True)) if isinstance(parsed, tuple) else parsed
    for at in set(range(len(column))) - set(unread):
        assert np.array_equal(rows[at], form.parse(column[at]))
        assert accepts(dict(form.schema), column[at])
        for rule in form.value_rules:
            assert (at in rule.suspects(parsed)) == (not rule.holds(form.parse(column[at])))


@given(st.lists(st.tuples(*[st.integers(-(2**60), 2**60)] * 3), min_size=1, max_size=5))
def test_rules_on_times_hold_for_columns_as_for_events(moments: Sequence[tuple[int, int, int]]) -> None:
    """One expression decides on an event's times and on columns of them."""
    columns = EventTimes(*(np.array(column, np.int64) for column in zip(*moments, strict=True)))
    for rule in TIME_RULES:
        assert rule.holds(columns).tolist() == [rule.holds(EventTimes(*moment)) for moment in moments]


@pytest.mark.parametrize("changes", [50.0, 5e15, -0.0])
def test_an_integral_number_is_an_integer_to_the_schema_too(changes: float) -> None:
    """The schema and the rules accept the same numbers."""
    assert accepts(field_schema(SENT_FIELDS["Changes"]), changes)
    assert not accepts(field_schema(SENT_FIELDS["Changes"]), 12.5)


def test_the_schema_is_one() -> None:
    """It is a valid JSON Schema, and each of its examples keeps it."""
    jsonschema.Draft202012Validator.check_schema(event_schema())
    jsonschema.validate({field.name: field.example for field in FIELDS}, event_schema())


def accepts(schema: dict[str, Any], value: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)
