r"""A body into events: pure, no clock, no network.

What is stored must be JSON objects and is otherwise not judged here: an event that breaks a rule goes to the dead
letters later, so that the sender does not repeat for ever what can never become valid.

What counts as JSON is RFC 8259's grammar in UTF-8, neither more nor less:

    refused   NaN and Infinity, comments, trailing commas, a byte order mark, raw control characters, anything after
              the end, bytes that are not UTF-8 (surrogates written as bytes among them)
    accepted  duplicate keys (the last one counts), numbers of any size, `\u0000`, unpaired surrogates as `\ud800`
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import msgspec

from ingress.errors import Reason, RequestError

KEY_MAX_BYTES = 64
_ESCAPED_KEY_MAX_BYTES = 2 + 6 * KEY_MAX_BYTES  # `\\u0041` for each
AT_ONCE_MAX_BYTES = 65_536  # a body that is not larger is parsed in a fraction of a millisecond, or a few at worst

_WHITESPACE = b" \t\r\n"
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_SEPARATOR = re.compile(rb"[ \t\r\n,]*")


class Event(msgspec.Struct, frozen=True, gc=False):  # a third of the time that a NamedTuple takes
    """One event: its bytes as they came, and the key that keeps a device's events in order (None: no usable IMEI)."""

    key: bytes | None
    value: bytes


class Limits(NamedTuple):
    """Bounds on what one request may hold."""

    events: int
    event_bytes: int
    nesting: int


def parse(body: bytes, *, ndjson: bool, limits: Limits) -> list[Event]:
    """The body's events; raises `RequestError` for the whole body if one of them cannot be an event."""
    return list(each(body, ndjson=ndjson, limits=limits))


def each(body: bytes, *, ndjson: bool, limits: Limits) -> Iterator[Event]:
    """The same, an event at a time: a large body is work for many turns of the loop."""
    if ndjson:
        return _several(_lines(body), "line", limits)
    if body.lstrip(_WHITESPACE)[:1] == b"[":
        return _several(_array(body, limits.events), "event", limits)
    return iter([_event(body, "the body", limits)])


def _several(parts: Iterator[tuple[int, bytes]], noun: str, limits: Limits) -> Iterator[Event]:
    count = 0
    for number, part in parts:
        if count == limits.events:
            raise RequestError(
                Reason.TOO_LARGE,
                f"the request holds more than {limits.events} events: send them in several requests",
            )
        count += 1
        yield _event(part, f"{noun} {number}", limits)
    if not count:
        raise RequestError(Reason.NO_EVENTS, "the request holds no event: at least one is expected")


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, and its number."""
    number, counted = 1, 0
    for line in _LINE.finditer(body):
        number += body.count(b"\n", counted, line.start())
        counted = line.start()
        yield number, line[0].rstrip(_WHITESPACE)


def _array(body: bytes, most: int) -> Iterator[tuple[int, bytes]]:
    """Each element's own bytes, and its number; of more than `most`, at least one more than that."""
    elements = _elements if len(body) <= AT_ONCE_MAX_BYTES else _first_elements(most + 1)
    try:
        return enumerate(map(bytes, elements(body)), 1)
    except RecursionError:
        raise RequestError(Reason.TOO_DEEP, "the body is nested too deep") from None
    except msgspec.DecodeError:
        return enumerate(_cut(body, elements), 1)


def _without_surrogates(text: bytes) -> bytes:
    """
    JSON of the same shape, each part of it as long as before, that msgspec can read.

    Unpaired surrogates, which RFC 8259 allows, are what msgspec is too strict with: other escapes take their place.
    """
    return text.replace(b"\\ud", b"\\ue").replace(b"\\uD", b"\\uE")


def _cut(body: bytes, elements: Callable[[bytes], Sequence[msgspec.Raw]]) -> Iterator[bytes]:
    """The elements of an array that msgspec refuses."""
    try:
        lengths = [len(memoryview(element)) for element in elements(_without_surrogates(body))]
    except msgspec.DecodeError as why:
        message = str(why).removeprefix("JSON is malformed: ")
        raise RequestError(Reason.NOT_JSON, f"the body is not JSON: {message}") from None
    at = body.index(b"[") + 1
    for length in lengths:
        at = _end_of(_SEPARATOR, body, at)
        yield body[at : at + length]
        at += length


def _end_of(pattern: "re.Pattern[bytes]", body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    return match.end() if match else at


_elements: Callable[[bytes], Sequence[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode


@lru_cache  # as many as there are settings in the process: one
def _first_elements(most: int) -> Callable[[bytes], Sequence[msgspec.Raw]]:
    """
    Gives the first `most` elements of an array, without making an object of every further one.

    Megabytes of `{},{},{}` would be a hundred of them in memory. A struct that is written as an array ignores what it
    has no field for.
    """
    fields = [(f"element_{number}", msgspec.Raw, None) for number in range(most)]
    decode = msgspec.json.Decoder(msgspec.defstruct("Elements", fields, array_like=True)).decode
    return lambda body: [element for element in msgspec.structs.astuple(decode(body)) if element is not None]


class _Sent(msgspec.Struct):
    """The one field that the door looks at, undecoded; b"" when there is none."""

    imei: msgspec.Raw = msgspec.field(name="IMEI", default_factory=msgspec.Raw)


_sent = msgspec.json.Decoder(_Sent).decode
_NOT_READ = (UnicodeDecodeError, msgspec.DecodeError, RecursionError)


def _event(value: bytes, what: str, limits: Limits) -> Event:
    if len(value) > limits.event_bytes:
        raise RequestError(
            Reason.TOO_LARGE, f"{what} is {len(value)} bytes long: at most {limits.event_bytes} are accepted"
        )
    key = _key(value, what)
    # As many brackets as levels are needed to nest that deep: nearly every event is done with the two counts.
    if value.count(b"{") + value.count(b"[") > limits.nesting and _deeper_than(value, limits.nesting):
        raise RequestError(Reason.TOO_DEEP, f"{what} is nested deeper than {limits.nesting} levels")
    return Event(key, value)


def _key(value: bytes, what: str) -> bytes | None:
    """The key of an event; raises `RequestError` if it is none. What msgspec refuses takes slower ways."""
    try:
        return _key_of(_imei(value))
    except _NOT_READ:
        pass
    try:
        raw = _imei(_without_surrogates(value))
    except _NOT_READ:
        pass
    else:
        if b"\\" not in raw:
            return _key_of(raw)
    parsed = _load_slowly(_text(value, what), what)
    if not isinstance(parsed, dict):
        raise RequestError(Reason.NOT_OBJECT, f"{what} is {_kind(parsed)}: a JSON object is expected")
    imei = parsed.get("IMEI")
    return _key_of(json.dumps(imei).encode()) if isinstance(imei, str) else None


def _imei(value: bytes) -> bytes:
    """
    The IMEI as it stands in the object.

    msgspec passes over what it is not asked for without making an object of it, which costs a tenth; it lets bytes pass
    there that are not UTF-8.
    """
    value.decode()
    return bytes(_sent(value).imei)


def _key_of(imei: bytes) -> bytes | None:
    """The key for an IMEI as it stands in JSON."""
    if imei[:1] != b'"':
        return None
    if b"\\" not in imei:
        key = imei[1:-1]
    elif len(imei) > _ESCAPED_KEY_MAX_BYTES:
        return None
    else:
        try:
            key = json.loads(imei).encode()
        except UnicodeEncodeError:  # an unpaired surrogate
            return None
    return key if 0 < len(key) <= KEY_MAX_BYTES else None


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


#: RFC 8259's grammar and no bound on numbers: their values do not matter here, and `len` is the fastest to make one.
_STRICT = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse_constant)


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(Reason.NOT_JSON, f"{what} is not UTF-8: {error.reason} at byte {error.start}") from None


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _load_slowly(text: str, what: str) -> Any:
    """What msgspec refused: either RFC 8259 allows it all the same, or the exact complaint is worth the time."""
    if not text.strip(" \t\r\n"):
        raise RequestError(Reason.NOT_JSON, f"{what} is empty: a JSON object is expected")
    try:
        parsed, end = _STRICT.raw_decode(text, _skip(text, 0))
    except json.JSONDecodeError as error:
        raise RequestError(
            Reason.NOT_JSON, f"{what} is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except ValueError as error:
        raise RequestError(Reason.NOT_JSON, f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise RequestError(Reason.TOO_DEEP, f"{what} is nested too deep") from None
    if text[end:].strip(" \t\r\n"):
        raise RequestError(Reason.NOT_JSON, f"{what} is not JSON: something follows its end at character {end}")
    return parsed


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _deeper_than(value: bytes, levels: int) -> bool:
    """Whether JSON is nested deeper. By its bytes: to make and walk through its lists takes ten times as long."""
    brackets = _STRING.sub(b"", value).translate(_SQUARE, _NO_BRACKETS)
    return _nested(levels).fullmatch(brackets) is None


@lru_cache  # as many as there are settings in the process: one
def _nested(levels: int) -> "re.Pattern[bytes]":
    """Brackets that belong together, at most so many levels of them. Possessive, so the time is linear."""
    pattern = b""
    for _ in range(levels):
        pattern = rb"(?:\[" + pattern + rb"\])*+"
    return re.compile(pattern)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {str: "a string", bool: "a boolean", list: "an array", int: "a number", float: "a number"}
    return kinds.get(type(value), "not an object")
