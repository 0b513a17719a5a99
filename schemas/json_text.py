r"""JSON as RFC 8259 defines it, kept as text: which members an object has, and how each value was written.

The ingress and the stream stage share this grammar. It accepts numbers of any size, duplicate names and unpaired
surrogates (`\ud83d`), and refuses what the RFC refuses: NaN, comments, trailing commas, a byte order mark, control
characters in strings, bytes that are not UTF-8, anything after the end.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_STRING_OR_WHITESPACE = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+')
_BLANK = re.compile(r"[ \t\r\n]")
#: An escape; a surrogate that has no partner is the group.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d+))?", re.ASCII)

#: More digits are never an integer of 64 bits, and may be too costly to work out.
_DIGITS_MAX = 40


class NotJsonError(ValueError):
    """The text is not JSON; the message says why and where."""


class Member(msgspec.Struct, gc=False, frozen=True):
    """One member of an object: its name, decoded, and its name and value as they were written."""

    name: str
    name_text: str
    value_text: str


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")


_raw_members: Callable[[bytes], dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_TOLERANT = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= _DIGITS_MAX else float(digits),
    parse_constant=_refuse_constant,
)

# The values do not matter here, and `len` is the cheapest way to make one: it also knows no bound on digits.
_SCANNER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse_constant)


def decoder_of(kind: Any) -> Callable[[bytes], Any]:
    """Return a decoder into `kind` that reads an unpaired surrogate, which msgspec refuses even in skipped fields.

    It reads one as U+FFFD, and raises `msgspec.MsgspecError`.
    """
    decode = msgspec.json.Decoder(kind).decode

    def decode_all(raw: bytes) -> Any:
        try:
            return decode(raw)
        except msgspec.MsgspecError:
            if (paired := _without_unpaired_surrogates(raw)) == raw:
                raise
            return decode(paired)

    return decode_all


def fields_of(raw: bytes) -> dict[str, Any]:
    """Return the members of the object as Python's values; raise `NotJsonError`.

    An unpaired surrogate is U+FFFD, and a number may be infinite.
    """
    text = text_of(_without_unpaired_surrogates(raw))
    try:
        fields = _TOLERANT.decode(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(error.msg) from None
    except RecursionError:
        raise NotJsonError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise NotJsonError("not an object")
    return fields


def _without_unpaired_surrogates(raw: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], raw)


def text_of(raw: bytes) -> str:
    """Decode UTF-8; raise `NotJsonError`."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise NotJsonError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def value_end(text: str, begin: int) -> int:
    """Return where the value that begins at `begin` ends; raise `NotJsonError`."""
    try:
        return _SCANNER.raw_decode(text, begin)[1]
    except json.JSONDecodeError as error:
        raise NotJsonError(f"{error.msg.removesuffix(' at')} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise NotJsonError("nested too deeply") from None


def members_of(raw: bytes) -> list[Member] | None:
    """Return the members of the object in order, duplicates included; None for another kind of value.

    Raise `NotJsonError`.
    """
    text = text_of(raw)
    return _plain_members(raw, text) or _scanned_members(text)


def _plain_members(raw: bytes, text: str) -> list[Member] | None:
    """Find the members by msgspec if no name is duplicate or escaped and the blanks are usual; else return None.

    The parser keeps the last of two members with one name, so their lengths do not add up to the whole.
    """
    try:
        found = _raw_members(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    members = [Member(name, f'"{name}"', str(value, "utf-8")) for name, value in found.items()]
    length = sum([len(member.name_text) + len(member.value_text) + 2 for member in members]) + 1
    if len(text) == length:
        return members
    has_blanks = text.count('": ') >= len(found) and text.count(', "') >= len(found) - 1  # behind each colon and comma
    return members if has_blanks and len(text) == length + 2 * len(found) - 1 else None


def _scanned_members(text: str) -> list[Member] | None:
    at = _skip(text, 0)
    if text[at : at + 1] == "\ufeff":
        raise NotJsonError("it begins with a byte order mark (U+FEFF): send it without one")
    end = _skip(text, value_end(text, at))
    if end < len(text):
        raise NotJsonError(f"something follows the end, at {_position(text, end)}")
    return _members(text, at + 1) if text[at] == "{" else None


def compact(text: str) -> str:
    """Remove insignificant white space; everything else stays as it was written."""
    if _BLANK.search(text) is None:
        return text
    return _STRING_OR_WHITESPACE.sub(lambda match: match[1] or "", text)


def string_of(text: str) -> str:
    """Return the value of a JSON string, with the unpaired surrogates that RFC 8259 allows."""
    return text[1:-1] if "\\" not in text else str(json.loads(text))


def integer_of(number_text: str) -> int | None:
    """Return the integer that a JSON number stands for (`50`, `50.0`, `5e1`); None if it has a fractional part.

    Numbers beyond 64 bits come back as some integer beyond 64 bits.
    """
    if len(number_text) <= _DIGITS_MAX and number_text.removeprefix("-").isdigit():
        return int(number_text)
    match = _NUMBER.fullmatch(number_text)
    if match is None:
        return None
    sign, whole, fraction, exponent_text = match[1], match[2], (match[3] or "").rstrip("0"), match[4] or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    zeros = len(digits) - len(digits.rstrip("0"))
    exponent_text = exponent_text if len(exponent_text) <= 8 else exponent_text[0] + "9" * 7
    shift = int(exponent_text) - len(fraction) + zeros
    if shift < 0:
        return None
    digits = digits.rstrip("0")
    if len(digits) + shift > _DIGITS_MAX:
        return -(1 << 128) if sign else 1 << 128
    return int(f"{sign}{digits}{'0' * shift}")


def _members(text: str, at: int) -> list[Member]:
    """Return the members from `at` on, behind the opening brace of a valid object."""
    members: list[Member] = []
    at = _skip(text, at)
    while text[at] != "}":
        name_end = _end(_STRING, text, at)
        name_text = text[at:name_end]
        begin = _skip(text, _skip(text, name_end) + 1)  # behind the colon
        end = value_end(text, begin)
        members.append(Member(string_of(name_text), name_text, text[begin:end]))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def _skip(text: str, at: int) -> int:
    return _end(_WHITESPACE, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _position(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1} column {at - text.rfind(chr(10), 0, at)}"
