"""Text from outside on a terminal: names in any script are shown, nothing moves the cursor."""

import pytest

from eventpush.text import has_control_characters, printable, quoted

PERSIAN = "کرایه\u200cخودرو"  # with ZWNJ
HINDI = "क्\u200dष परिवहन"  # with ZWJ
NO_BREAK = "A.\u00a0Rao"


@pytest.mark.parametrize("name", [PERSIAN, HINDI, NO_BREAK, "MP09-HG-1234", "東京", "👨\u200d👩\u200d👧"])
def test_names_of_any_script_are_printed_as_they_are(name: str) -> None:
    """Joiners and the no-break space are part of names, not control characters."""
    assert not has_control_characters(name)
    assert printable(name) == name


@pytest.mark.parametrize("c", ["\0", "\t", "\n", "\x1b", "\x7f", "\x9b", "\ud83d"])
def test_control_characters_and_surrogates_are_neither_accepted_nor_printed(c: str) -> None:
    """C0, C1, DEL and unpaired surrogates."""
    assert has_control_characters(f"a{c}b")
    assert printable(f"a{c}b") == "a�b"


@pytest.mark.parametrize("c", ["\u2028", "\u2029", "\u202e", "\u2066"])
def test_what_breaks_or_reorders_a_line_is_not_printed(c: str) -> None:
    """An event stays one line, and a field cannot reorder its neighbours."""
    assert printable(f"a{c}b") == "a�b"


def test_quoted_names_differ_where_names_do() -> None:
    """Blanks, invisible characters, quotes and look-alikes of escapes."""
    names = ["overspeed", "overspeed ", " overspeed", "overspeed\u200b", "overspeed\u00a0", '"overspeed"', "", " "]
    names += ["over\nspeed", "over\\nspeed", "حريق"]
    assert len({quoted(name) for name in names}) == len(names)
    assert quoted("overspeed ") == '"overspeed "'
    assert quoted("sos\u200b") == '"sos\\u200b"'
    assert quoted("حريق") == '"حريق"'
    assert all(quoted(name).isprintable() for name in names)
