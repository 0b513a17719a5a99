"""Text from outside, shown on a terminal."""

import unicodedata

_CONTROL = frozenset({"Cc", "Cs"})  # control characters, unpaired surrogates
_LINE_BREAKING = frozenset({"Zl", "Zp"})
#: Bidirectional controls (UAX #9) that reorder what follows, also beyond the field that holds them.
_REORDERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def has_control_characters(text: str) -> bool:
    """Return whether the text holds a control character or an unpaired surrogate.

    Joiners (ZWJ, ZWNJ) and the no-break space are neither: Persian and Hindi names need them.
    """
    return any(unicodedata.category(c) in _CONTROL for c in text)


def printable(text: str) -> str:
    """Replace characters that move the cursor, break the line or reorder it; keep all others."""
    return text if text.isprintable() else "".join(c if _is_harmless(c) else "�" for c in text)


def quoted(name: str) -> str:
    """Return the name in double quotes, with invisible characters as escapes: different names never look the same."""
    return '"' + "".join(_escaped(c) for c in name) + '"'


def _is_harmless(c: str) -> bool:
    category = unicodedata.category(c)
    return category not in _CONTROL | _LINE_BREAKING and unicodedata.bidirectional(c) not in _REORDERING


def _escaped(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    return c if c.isprintable() else c.encode("unicode_escape").decode()
