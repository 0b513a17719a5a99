r"""A body into events: pure, no clock, no network.

What is stored must be JSON objects and is otherwise not judged here: an event that breaks a rule goes to the dead
letters later, so that the sender does not repeat for ever what can never become valid.

What counts as JSON is RFC 8259's grammar in UTF-8, neither more nor less:

    refused   NaN and Infinity, comments, trailing commas, a byte order mark, raw control characters, anything after
              the end, bytes that are not UTF-8 (surrogates written as bytes among them)
    accepted  duplicate keys (the last one counts), numbers of any size, `\u0000`, unpaired surrogates as `\ud800`
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import msgspec
import orjson

from ingress.refusals import Reason, Refused

KEY_MAX_BYTES = 64

_elements = msgspec.json.Decoder(list[msgspec.Raw])
_WHITESPACE = b" \t\r\n"


class Event(NamedTuple):
    """One event: its bytes as they came, and the key that keeps a device's events in order (None: no usable IMEI)."""

    key: bytes | None
    value: bytes


class Limits(NamedTuple):
    """Bounds on what one request may hold."""

    events: int
    event_bytes: int
    nesting: int


def parse(body: bytes, *, ndjson: bool, limits: Limits) -> list[Event]:
    """The body's events; raises `Refused` for the whole body if one of them cannot be an event."""
    if ndjson:
        return _several(_lines(body), "line", limits)
    if body.lstrip(_WHITESPACE)[:1] == b"[":
        return _several(_array(body), "event", limits)
    return [_event(body, "the body", limits)]


def _several(parts: Iterator[tuple[int, bytes]], noun: str, limits: Limits) -> list[Event]:
    events: list[Event] = []
    for number, part in parts:
        if len(events) == limits.events:
            raise Refused(
                Reason.TOO_LARGE,
                f"the request holds more than {limits.events} events: send them in several requests",
            )
        events.append(_event(part, f"{noun} {number}", limits))
    if not events:
        raise Refused(Reason.NO_EVENTS, "the request holds no event: at least one is expected")
    return events


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(body.split(b"\n"), 1):
        if stripped := line.strip(_WHITESPACE):
            yield number, stripped


def _array(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Each element's own bytes."""
    try:
        return enumerate(map(bytes, _elements.decode(body)), 1)
    except (msgspec.DecodeError, RecursionError):
        return _array_slowly(body)  # msgspec refuses some of what RFC 8259 allows, and says little about the rest


def _array_slowly(body: bytes) -> Iterator[tuple[int, bytes]]:
    text = _text(body, "the body")
    _load_slowly(text, "the body")
    scan = _STRICT.raw_decode
    at = _skip(text, _skip(text, 0) + 1)
    number = 0
    while text[at] != "]":
        number += 1
        _, end = scan(text, at)
        yield number, text[at:end].encode()
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _event(value: bytes, what: str, limits: Limits) -> Event:
    if len(value) > limits.event_bytes:
        raise Refused(Reason.TOO_LARGE, f"{what} is {len(value)} bytes long: at most {limits.event_bytes} are accepted")
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        parsed = _load_slowly(_text(value, what), what)
    if not isinstance(parsed, dict):
        raise Refused(Reason.NOT_OBJECT, f"{what} is {_kind(parsed)}: a JSON object is expected")
    # As many brackets as levels are needed to nest that deep: nearly every event is done with the two counts.
    if value.count(b"{") + value.count(b"[") > limits.nesting and _deeper_than(parsed, limits.nesting):
        raise Refused(Reason.TOO_DEEP, f"{what} is nested deeper than {limits.nesting} levels")
    return Event(_key(parsed.get("IMEI")), value)


def _key(imei: object) -> bytes | None:
    if not isinstance(imei, str):
        return None
    try:
        key = imei.encode()
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
        raise Refused(Reason.NOT_JSON, f"{what} is not UTF-8: {error.reason} at byte {error.start}") from None


def _load_slowly(text: str, what: str) -> Any:
    """What orjson refused: either RFC 8259 allows it all the same, or the exact complaint is worth the time."""
    if not text.strip(" \t\r\n"):
        raise Refused(Reason.NOT_JSON, f"{what} is empty: a JSON object is expected")
    try:
        parsed, end = _STRICT.raw_decode(text, _skip(text, 0))
    except json.JSONDecodeError as error:
        raise Refused(
            Reason.NOT_JSON, f"{what} is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except ValueError as error:
        raise Refused(Reason.NOT_JSON, f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise Refused(Reason.TOO_DEEP, f"{what} is nested too deep") from None
    if text[end:].strip(" \t\r\n"):
        raise Refused(Reason.NOT_JSON, f"{what} is not JSON: something follows its end at character {end}")
    return parsed


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {str: "a string", bool: "a boolean", list: "an array", int: "a number", float: "a number"}
    return kinds.get(type(value), "not an object")
