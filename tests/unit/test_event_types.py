"""Event types: one normal form, and one topic for each."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.event_types import TYPES, canonical

WRITTEN = st.one_of(
    st.text(max_size=30), st.sampled_from(["Fuel Drain", "SOS ", "डिपो", "حريق", "खतरा", "ﷺ", "İ", "ß"])
)


@given(WRITTEN)
def test_normalising_twice_changes_nothing(text: str) -> None:
    """The normal form is its own normal form, for any text."""
    assert canonical(canonical(text)) == canonical(text)


@given(st.lists(WRITTEN, min_size=2, max_size=8))
def test_two_types_never_share_a_topic(texts: list[str]) -> None:
    """Different normal forms have different topics, with names that Kafka allows."""
    types = {canonical(text) for text in texts} - {""}
    names = {topics.of_type(event) for event in types}
    assert len(names) == len(types)
    assert all(re.fullmatch(r"telematics\.event\.[a-z0-9_-]{1,64}\.v1", name) for name in names)


def test_scripts_without_latin_letters_have_topics_of_their_own() -> None:
    """Three words that were one topic before."""
    assert len({topics.of_type(canonical(event)) for event in ("डिपो", "حريق", "खतरा")}) == 3


@pytest.mark.parametrize("event", TYPES)
def test_known_types_keep_their_topics(event: str) -> None:
    """Their names are normal, and their topics are named by them."""
    assert canonical(event) == event
    assert topics.of_type(event) == f"telematics.event.{event}.v1"


@pytest.mark.parametrize("event", ["harsh_braking", "a", "x" * 64, "door_2"])
def test_plain_types_are_readable_in_their_topics(event: str) -> None:
    """Letters a-z, digits and underscores, as they are."""
    assert topics.of_type(event) == f"telematics.event.{event}.v1"


def test_a_long_type_and_its_beginning_stay_apart() -> None:
    """A name that is cut has a digest, so no other type's name is that one."""
    assert topics.of_type("x" * 65) != topics.of_type("x" * 64)
    assert topics.of_type("x" * 65) != topics.of_type("x" * 66)
    assert topics.of_type("a.b") != topics.of_type("ab")
