r"""A body into events: pure, no clock, no network.

Events must be JSON objects; their rules are not checked here. An event that breaks a rule goes to the dead letters
later, so that the sender does not retry forever what can never become valid.

JSON is exactly RFC 8259's grammar in UTF-8:

    rejected  NaN and Infinity, comments, trailing commas, a byte order mark, raw control characters, anything after
              the end, bytes that are not UTF-8 (surrogates encoded as bytes among them)
    accepted  duplicate keys (the last one counts), numbers of any size, `\u0000`, unpaired surrogates as `\ud800`
"""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import msgspec

from ingress.errors import Rejection, RequestError

KEY_MAX_BYTES = 64
_ESCAPED_KEY_MAX_BYTES = 2 + 6 * KEY_MAX_BYTES  # `\\u0041` for each
AT_ONCE_MAX_BYTES = 65_536  # a body up to this size takes a fraction of a millisecond, a few at worst

_WHITESPACE = b" \t\r\n"
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_SEPARATOR = re.compile(rb"[ \t\r\n,]*")
_BYTE_ORDER_MARKS = {
    BOM_UTF8: "UTF-8",
    BOM_UTF32_LE: "UTF-32",  # before UTF-16's, which it begins with
    BOM_UTF32_BE: "UTF-32",
    BOM_UTF16_LE: "UTF-16",
    BOM_UTF16_BE: "UTF-16",
}


class Event(msgspec.Struct, frozen=True, gc=False):  # a third of the time that a NamedTuple takes
    """One event: its bytes as sent, and the key that keeps a device's events in order (None: no usable IMEI)."""

    key: bytes | None
    value: bytes


class Limits(NamedTuple):
    """Limits on one request."""

    events: int
    event_bytes: int
    nesting: int


class _EventError(Exception):
    """Why bytes are not an event, without where they are: what is wrong, and at which line and column of them."""

    def __init__(self, reason: Rejection, problem: str, position: tuple[int, int] | None = None) -> None:
        self.reason = reason
        self.problem = problem
        self.position = position

    def to_request_error(self, part: str, position: str = "") -> RequestError:
        """Make the rejection of the request, naming the part of the body that is wrong."""
        return RequestError(self.reason, f"{part} {self.problem}{position}")


def parse(body: bytes, *, ndjson: bool, limits: Limits) -> list[Event]:
    """Parse the body's events. Raise `RequestError` for the whole body if one of them is not an event."""
    if not ndjson and body[:1] == b"{":  # nearly always
        return [_only(body, limits)]
    return list(iter_events(body, ndjson=ndjson, limits=limits))


def iter_events(body: bytes, *, ndjson: bool, limits: Limits) -> Iterator[Event]:
    """Parse one event at a time: a large body takes many time slices."""
    if ndjson:
        return _several(_lines(body), body, limits)
    if body.lstrip(_WHITESPACE)[:1] == b"[":
        return _several(_array(body, limits.events), None, limits)
    return iter([_only(body, limits)])


def _only(body: bytes, limits: Limits) -> Event:
    """Parse a body that is one event."""
    try:
        return _event(body, limits)
    except _EventError as error:
        position = "" if error.position is None else " at line {} column {}".format(*error.position)
        raise error.to_request_error("body", position) from None


def _several(parts: Iterator[tuple[int, int, bytes]], lines: bytes | None, limits: Limits) -> Iterator[Event]:
    """Parse parts of a body: number (from 1), offset and bytes of each; `lines` is the body if they are lines of it."""
    count = 0
    for number, offset, part in parts:
        if count == limits.events:
            message = f"request has more than {limits.events} events; send them in several requests"
            raise RequestError(Rejection.TOO_LARGE, message)
        count += 1
        try:
            event = _event(part, limits)
        except _EventError as error:
            raise _locate(error, number, offset, lines) from None
        yield event
    if not count:
        raise RequestError(Rejection.NO_EVENTS, "request has no events; send at least one")


def _locate(error: _EventError, number: int, offset: int, lines: bytes | None) -> RequestError:
    if error.position is None:
        return error.to_request_error(f"{'event' if lines is None else 'line'} {number}")
    line, column = error.position
    if lines is None:
        return error.to_request_error(f"event {number}", f" at line {line} column {column} of the event")
    indent = offset - (lines.rfind(b"\n", 0, offset) + 1)
    return error.to_request_error(f"line {number}", f" at column {indent + column}")


def _lines(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each line that is not blank: its number, the offset of its first character, its bytes."""
    number, counted = 1, 0
    for line in _LINE.finditer(body):
        number += body.count(b"\n", counted, line.start())
        counted = line.start()
        yield number, counted, line[0].rstrip(_WHITESPACE)


def _array(body: bytes, most: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield each element's own bytes with its number; of more than `most`, at least one more than that."""
    elements = _elements if len(body) <= AT_ONCE_MAX_BYTES else _first_elements(most + 1)
    try:
        values: Iterator[bytes] = map(bytes, elements(body))
    except RecursionError:
        raise RequestError(Rejection.TOO_DEEP, "body is nested too deeply") from None
    except msgspec.DecodeError:
        values = _cut(body, elements)
    return ((number, 0, value) for number, value in enumerate(values, 1))


def _without_surrogates(text: bytes) -> bytes:
    """Make JSON of the same shape and lengths that msgspec can read.

    msgspec rejects unpaired surrogates, which RFC 8259 allows: other escapes replace them.
    """
    return text.replace(b"\\ud", b"\\ue").replace(b"\\uD", b"\\uE")


def _cut(body: bytes, elements: Callable[[bytes], Sequence[msgspec.Raw]]) -> Iterator[bytes]:
    """Yield the elements of an array that msgspec rejects."""
    try:
        lengths = [len(memoryview(element)) for element in elements(_without_surrogates(body))]
    except msgspec.DecodeError as error:
        problem = _MSGSPEC_OFFSET.sub(lambda match: _line_and_column(body, int(match[1])), str(error))
        message = f"body is not JSON: {problem.removeprefix('JSON is malformed: ')}"
        raise RequestError(Rejection.NOT_JSON, message) from None
    at = body.index(b"[") + 1
    for length in lengths:
        at = _end_of(_SEPARATOR, body, at)
        yield body[at : at + length]
        at += length


_MSGSPEC_OFFSET = re.compile(r"\(byte ([0-9]+)\)$")


def _line_and_column(body: bytes, offset: int) -> str:
    line, column = _position(body[:offset].decode(errors="replace"))
    return f"at line {line} column {column}"


def _end_of(pattern: "re.Pattern[bytes]", body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    return match.end() if match else at


_elements: Callable[[bytes], Sequence[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode


@lru_cache  # one entry: the process's setting
def _first_elements(most: int) -> Callable[[bytes], Sequence[msgspec.Raw]]:
    """Return a decoder of the first `most` elements of an array, which makes no objects of further ones.

    Megabytes of `{},{},{}` would take a hundred times as much memory. A struct that is encoded as an array ignores
    elements that it has no field for.
    """
    fields = [(f"element_{number}", msgspec.Raw, None) for number in range(most)]
    decode = msgspec.json.Decoder(msgspec.defstruct("Elements", fields, array_like=True)).decode
    return lambda body: [element for element in msgspec.structs.astuple(decode(body)) if element is not None]


class _Sent(msgspec.Struct):
    """The only field that the ingress reads, undecoded; b"" when it is absent."""

    imei: msgspec.Raw = msgspec.field(name="IMEI", default_factory=msgspec.Raw)


_sent = msgspec.json.Decoder(_Sent).decode
_NOT_READ = (UnicodeDecodeError, msgspec.DecodeError, RecursionError)


def _event(value: bytes, limits: Limits) -> Event:
    """Check that the bytes are an event. Raise `_EventError`."""
    if len(value) > limits.event_bytes:
        _reject_byte_order_mark(value)  # before an array, it hides that the body is one
        problem = f"is {len(value)} bytes long; the limit for an event is {limits.event_bytes}"
        raise _EventError(Rejection.TOO_LARGE, problem)
    try:
        key = _key_of(_imei(value))
    except _NOT_READ:
        key = _key_slowly(value)
    # Nesting that deep takes as many brackets: for nearly every event the two counts are enough.
    if value.count(b"{") + value.count(b"[") > limits.nesting and _deeper_than(value, limits.nesting):
        raise _EventError(Rejection.TOO_DEEP, f"is nested deeper than {limits.nesting} levels")
    return Event(key, value)


def _key_slowly(value: bytes) -> bytes | None:
    """Return the key of an event that msgspec rejects. Raise `_EventError`."""
    try:
        raw = _imei(_without_surrogates(value))
    except _NOT_READ:
        pass
    else:
        if b"\\" not in raw:
            return _key_of(raw)
    parsed = _load_slowly(_text(value))
    if not isinstance(parsed, dict):
        raise _EventError(Rejection.NOT_OBJECT, f"is {_kind(parsed)}; send a JSON object")
    imei = parsed.get("IMEI")
    return _key_of(json.dumps(imei).encode()) if isinstance(imei, str) else None


def _imei(value: bytes) -> bytes:
    """Return the IMEI as encoded in the object.

    msgspec skips other fields without making objects of them, which takes a tenth of the time.
    """
    value.decode()  # msgspec skips bytes that are not UTF-8, too
    return bytes(_sent(value).imei)


def _key_of(imei: bytes) -> bytes | None:
    """Return the key for an IMEI as encoded in JSON."""
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


#: RFC 8259's grammar, and numbers of any size: their values do not matter here, and `len` is the fastest converter.
_STRICT = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse_constant)


def _text(value: bytes) -> str:
    _reject_byte_order_mark(value)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        position = _position(value[: error.start].decode())
        raise _EventError(Rejection.NOT_JSON, f"is not UTF-8: {error.reason}", position) from None


def _position(before: str) -> tuple[int, int]:
    """Return line and column, from 1, of what follows `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _reject_byte_order_mark(value: bytes) -> None:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if value.startswith(mark):
            problem = f"starts with a byte order mark ({encoding}); send UTF-8 without one"
            raise _EventError(Rejection.NOT_JSON, problem)


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _load_slowly(text: str) -> Any:
    """Parse what msgspec rejected: RFC 8259 allows it all the same, or the exact error is worth the time."""
    if not text.strip(" \t\r\n"):
        raise _EventError(Rejection.NOT_JSON, "is empty; send a JSON object")
    try:
        parsed, end = _STRICT.raw_decode(text, _skip(text, 0))
    except json.JSONDecodeError as error:
        problem = error.msg[:1].lower() + error.msg[1:]
        raise _EventError(Rejection.NOT_JSON, f"is not JSON: {problem}", (error.lineno, error.colno)) from None
    except ValueError as error:
        raise _EventError(Rejection.NOT_JSON, f"is not JSON: {error}") from None
    except RecursionError:
        raise _EventError(Rejection.TOO_DEEP, "is nested too deeply") from None
    rest = text[end:].lstrip(" \t\r\n")
    if rest:
        raise _EventError(
            Rejection.NOT_JSON, "is not JSON: extra data after the end", _position(text[: len(text) - len(rest)])
        )
    return parsed


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _deeper_than(value: bytes, levels: int) -> bool:
    """Return whether JSON is nested deeper. Checks its bytes: to build and walk its lists takes ten times as long."""
    brackets = _STRING.sub(b"", value).translate(_SQUARE, _NO_BRACKETS)
    return _nested(levels).fullmatch(brackets) is None


@lru_cache  # one entry: the process's setting
def _nested(levels: int) -> "re.Pattern[bytes]":
    """Return a regex for balanced brackets at most `levels` deep. Possessive, so its time is linear."""
    pattern = b""
    for _ in range(levels):
        pattern = rb"(?:\[" + pattern + rb"\])*+"
    return re.compile(pattern)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {str: "a string", bool: "a boolean", list: "an array", int: "a number", float: "a number"}
    return kinds.get(type(value), "not an object")
