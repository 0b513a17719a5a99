"""What is JSON: the ingress, the dry run and the stream stage give the same answer, RFC 8259's.

Each text is the value of an unknown field of a valid event. The kinds are those of the RFC's grammar and of known
parser differences; the texts are our own.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ingress.dry_run import validated
from ingress.errors import RequestError
from ingress.event_parser import Event, Limits, parse
from schemas.validation import ClockLimits, ValidEvent, validate
from streams.decoding import decode

SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
ARRIVAL_US = 2**60
CLOCK = ClockLimits.of_seconds(300, 86_400)
LIMITS = Limits(events=10, event_bytes=1 << 20, nesting=64)

VALID: dict[str, bytes] = {
    "numbers without bound": b"[0, -0, 1e400, -1E+400, 1e-400, 123456789012345678901234567890, 0.1e1, 1E22]",
    "a long number": b"1" * 5_000,
    "a long exponent": b"1e" + b"9" * 400,
    "literals": b"[true, false, null]",
    "every escape": rb'["\"\\\/\b\f\n\r\t\u00e9", "\u0000", "\uD83D\uDE00"]',
    "a lone high surrogate": rb'"Depot \ud83d"',
    "a lone low surrogate": rb'"\uDE00"',
    "surrogates in the wrong order": rb'"\uDE00\uD83D"',
    "a high surrogate before text": rb'"\ud83dx"',
    "a lone surrogate as a name": rb'{"\ud83d": 1}',
    "noncharacters and private use": '["\\ufffe", "\uffff", "\ue000", "\U0010ffff"]'.encode(),
    "DEL and line separators": '["\u007f", "\u2028\u2029"]'.encode(),
    "white space of every kind": b" \t\r\n{ \t\r\n} \t\r\n",
    "empty containers and names": b'[{}, [], {"": ""}, ""]',
    "duplicate names": b'{"a": 1, "a": 2, "a": 2}',
    "nesting up to the bound": b"[" * 60 + b"]" * 60,
    "brackets in strings": b'["{[", "]}"]',
    "quotes and commas in strings": rb'["\"a\": 1, \"b\": [", ","]',
    "UTF-8 of two to four bytes": '["é", "€", "🚒"]'.encode(),
    "a byte order mark within a string": '"\ufeff"'.encode(),
}
INVALID: dict[str, bytes] = {
    "nothing": b"",
    "blanks only": b"  ",
    "no closing bracket": b"[1",
    "no closing brace": b'{"a": 1',
    "mismatched brackets": b"[1}",
    "a comma at the end": b"[1,]",
    "a comma at the beginning": b"[,1]",
    "two commas": b"[1,,2]",
    "a comma after a member": b'{"a": 1,}',
    "no comma": b"[1 2]",
    "no colon": b'{"a" 1}',
    "two colons": b'{"a":: 1}',
    "a name without quotes": b"{a: 1}",
    "a number as a name": b"{1: 1}",
    "single quotes": b"['a']",
    "a leading zero": b"[01]",
    "a leading plus": b"[+1]",
    "a lone minus": b"[-]",
    "a point without digits": b"[1.]",
    "digits missing before a point": b"[.5]",
    "an exponent without digits": b"[1e]",
    "an exponent with a sign only": b"[1e+]",
    "hexadecimal": b"[0x1F]",
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "capital literals": b"[True]",
    "a cut literal": b"[nul]",
    "a comment": b"[1 /* one */]",
    "a line comment": b"[1] // one\n",
    "a raw control character": b'["a\x01b"]',
    "a raw line break in a string": b'["a\nb"]',
    "an unknown escape": rb'["\x41"]',
    "a cut escape": rb'["\u00"]',
    "an escape at the end": b'["\\',
    "a string without an end": b'["a',
    "bytes that are not UTF-8": b'["\xff"]',
    "an overlong encoding": b'["\xc0\xaf"]',
    "a surrogate in UTF-8": b'["\xed\xa0\xbd"]',
    "beyond Unicode": b'["\xf4\xbf\xbf\xbf"]',
    "a cut UTF-8 sequence": b'["\xe2\x82"]',
    "a byte order mark": b"\xef\xbb\xbf[1]",
    "a form feed as white space": b"[\x0c1]",
    "a no-break space as white space": "[\u00a01]".encode(),
    "a NUL byte": b"[\x00]",
    "full-width digits": "[１]".encode(),
}


def wrapped(text: bytes) -> bytes:
    """A valid event with an unknown field of this value."""
    return json.dumps(SAMPLE)[:-1].encode() + b', "unknown": ' + text + b"}"


def at_the_door(raw: bytes) -> bool:
    try:
        parse(raw, ndjson=False, limits=LIMITS)
    except RequestError:
        return False
    return True


def in_the_dry_run(raw: bytes) -> bool:
    (outcome,) = validated([Event(None, raw)], ARRIVAL_US, CLOCK)
    return isinstance(outcome, ValidEvent)


def in_the_stream_stage(raw: bytes) -> bool:
    record: Any = SimpleNamespace(offset=0, timestamp=ARRIVAL_US // 1000, key=None, value=raw, headers=[])
    events, invalid = decode([record], np.zeros(1, np.int64), CLOCK)
    assert len(events.event) + len(invalid) == 1
    return len(events.event) == 1


@pytest.mark.parametrize("kind", VALID)
def test_json_is_accepted_everywhere(kind: str) -> None:
    """An event with any JSON value in an unknown field is accepted, valid, and the value kept but for white space."""
    raw = wrapped(VALID[kind])
    assert (at_the_door(raw), in_the_dry_run(raw), in_the_stream_stage(raw)) == (True, True, True)
    event = validate(raw, ARRIVAL_US, CLOCK)
    assert isinstance(event, ValidEvent)
    assert b"\n" not in event.extra
    if b" " not in VALID[kind].strip():
        assert event.extra == b'{"unknown":' + VALID[kind].strip() + b"}"


@pytest.mark.parametrize("kind", INVALID)
def test_what_is_no_json_is_refused_everywhere(kind: str) -> None:
    """The ingress refuses it; a record that came past the ingress is a dead letter with the one reason `not_json`."""
    raw = wrapped(INVALID[kind])
    assert (at_the_door(raw), in_the_dry_run(raw), in_the_stream_stage(raw)) == (False, False, False)
    found = validate(raw, ARRIVAL_US, CLOCK)
    assert isinstance(found, list)
    assert [violation.code for violation in found] == ["not_json"]
