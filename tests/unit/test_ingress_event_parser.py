"""A body into events: what is JSON, what is an event, which key it gets."""

import codecs
import gc
import gzip
import json
import sys
import time
import tracemalloc
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress import request_body
from ingress.errors import Rejection, RequestError
from ingress.event_parser import AT_ONCE_MAX_BYTES, Event, Limits, iter_events, parse

#: What Python's decoder says of `{"a":1,}`, and the column where it says so.
TRAILING_COMMA = (
    ("illegal trailing comma before end of object", 7)
    if sys.version_info >= (3, 13)
    else ("expecting property name enclosed in double quotes", 8)
)
LIMITS = Limits(events=5, event_bytes=2_000, nesting=4)


def one(body: bytes) -> Event:
    [event] = parse(body, ndjson=False, limits=LIMITS)
    return event


def refused(body: bytes, *, ndjson: bool = False, limits: Limits = LIMITS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(body, ndjson=ndjson, limits=limits)
    return caught.value


def test_bytes_are_untouched():
    """The value is the request's bytes, white space and all; the key is the IMEI."""
    body = b' \n{ "IMEI" : "350612075195931", "x": 1.50 }\r\n '
    assert one(body) == Event(b"350612075195931", body)


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"IMEI":"350612075195931"}', b"350612075195931"),
        (b'{"IMEI":"first","IMEI":"last"}', b"last"),
        (b'{"IMEI":350612075195931}', None),
        (b'{"IMEI":null}', None),
        (b'{"IMEI":""}', None),
        (b'{"imei":"350612075195931"}', None),
        (b'{"IMEI":"\\u0000"}', b"\x00"),
        (b'{"IMEI":"\\ud800"}', None),
        (b'{"IMEI":"' + b"9" * 64 + b'"}', b"9" * 64),
        (b'{"IMEI":"' + b"9" * 65 + b'"}', None),
        ('{"IMEI":"ä"}'.encode(), "ä".encode()),
        (b"{}", None),
    ],
)
def test_key(body, key):
    """The key is the last IMEI, if it is a string of 1 to 64 bytes; whatever else it is, the event is taken without."""
    assert one(body) == Event(key, body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\\u0000"}',
        b'{"a":1e999}',
        b'{"a":-1E-999}',
        b'{"a":' + b"9" * 1_900 + b"}",
        b'{"":{}}',
        b"\t{}\r\n",
    ],
)
def test_all_of_rfc_8259_is_stored(body):
    """What the grammar of JSON allows is stored as it is: it is processed later, and the sender need not repeat it."""
    assert one(body).value == body
    assert parse(b"[" + body + b" , " + body + b"]", ndjson=False, limits=LIMITS) == [one(body.strip())] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \r\n\t",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',  # a surrogate written in UTF-8
        b'{"a":"\xc0\x80"}',  # NUL, overlong
        b'{"a":1} x',
        b'{"a":1}\x00',
        b'{"a":1}{"b":2}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\x00"}',
        b'{"a":"\n"}',
        b'{"a":"\\x41"}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":1,}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1}//',
        b'{"a":1',
        b'{"a"}',
        b"nul",
        b"\x0b{}",
    ],
)
def test_what_is_not_json(body):
    """What is not JSON in UTF-8 is refused, alone, in an array and as a line, and the message says why."""
    refusal = refused(body)
    assert refusal.reason is Rejection.NOT_JSON
    assert refusal.message.startswith("body ")
    if body.strip():
        assert refused(b'[{"ok":1},' + body + b"]").reason is Rejection.NOT_JSON
    if body.strip() and b"\n" not in body and b"\x0b" not in body:
        assert refused(b'{"ok":1}\n' + body, ndjson=True).message.startswith("line 2 ")


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b'"x"', "a string"), (b"1", "a number"), (b"1e999", "a number"), (b"true", "a boolean"), (b"null", "null")],
)
def test_what_is_no_object(body, kind):
    """JSON that is not an object is no event; the message says what it is."""
    assert (refused(body).reason, refused(body).message) == (
        Rejection.NOT_OBJECT,
        f"body is {kind}; send a JSON object",
    )
    assert refused(b"[{}," + body + b"]").message == f"event 2 is {kind}; send a JSON object"
    assert refused(b"[[]]").message == "event 1 is an array; send a JSON object"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a":1,}', f"body is not JSON: {TRAILING_COMMA[0]} at line 1 column {TRAILING_COMMA[1]}"),
        (b'{\n "a":\n  nul}', "body is not JSON: expecting value at line 3 column 3"),
        ('{"ä": \n "'.encode() + b"\xff", "body is not UTF-8: invalid start byte at line 2 column 3"),
        (b'{"a":1}\n x', "body is not JSON: extra data after the end at line 2 column 2"),
        (b'[{"a":1},\n {"a" 2}]', "body is not JSON: expected ':' at line 2 column 7"),
        (b'[{}, {"a":"\xff"}]', "event 2 is not UTF-8: invalid start byte at line 1 column 7 of the event"),
    ],
)
def test_where_a_body_is_broken(body, message):
    """The message gives line and column, both from 1."""
    assert refused(body).message == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a":1,}', f"is not JSON: {TRAILING_COMMA[0]} at column {TRAILING_COMMA[1]}"),
        (b'  {"a": 1 2}', "is not JSON: expecting ',' delimiter at column 11"),
        (b'\t{"\xc3\xa4":tru}', "is not JSON: expecting value at column 7"),
        (b'  {"\xc3\xa4":"\xff"}', "is not UTF-8: invalid start byte at column 9"),
        (b' {"a":1} {"b":2}', "is not JSON: extra data after the end at column 10"),
        (b"  [1]", "is an array; send a JSON object"),
    ],
)
def test_where_a_line_is_broken(line, message):
    """The message gives the number of the broken line, blank lines counted, and the column in it."""
    assert refused(b'{"ok":1}\n\n \r\n' + line + b'\n{"ok":1}', ndjson=True).message == f"line 4 {message}"
    assert refused(line, ndjson=True).message == f"line 1 {message}"


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        (codecs.BOM_UTF8, "UTF-8"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
    ],
)
def test_a_byte_order_mark_is_named(mark, name):
    """The message says what the invisible bytes at the start are: before an object, an array and a line."""
    message = f"starts with a byte order mark ({name}); send UTF-8 without one"
    for body in (b'{"a":1}', b'[{"a":1}]', b"[" + b"{}," * 1_000 + b"{}]", b""):
        refusal = refused(mark + body)
        assert (refusal.reason, refusal.message) == (Rejection.NOT_JSON, f"body {message}")
    assert refused(mark + b"{}\n{}", ndjson=True).message == f"line 1 {message}"


def test_nesting():
    """Events may be nested up to the limit; deeper is refused however deep it is, brackets in strings apart."""
    assert one(b'{"a":[[{}]]}')
    assert one(b'{"a":"' + b"[{" * 500 + b'"}')
    assert one(b'{"a":[],"b":[],"c":[],"d":[],"e":{}}')
    assert refused(b'{"a":[[[{}]]]}').reason is Rejection.TOO_DEEP
    wide = LIMITS._replace(event_bytes=1_000_000)
    for depth in (900, 1_500, 100_000):
        for bracket in (b"[", b'{"a":'):
            assert refused(b'{"a":' + bracket * depth, limits=wide).reason in {Rejection.TOO_DEEP, Rejection.NOT_JSON}
            assert refused(bracket * depth, limits=wide).reason in {Rejection.TOO_DEEP, Rejection.NOT_JSON}
    assert refused(b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", limits=wide).reason is Rejection.TOO_DEEP


def test_brackets_in_strings_are_no_nesting():
    """Only brackets outside strings count, whatever is escaped in them."""
    for text in ("[[[[[[", '\\"[[[[[[', "\\\\", '\\\\\\"{{{{{{', "}]}]"):
        assert one(b'{"a":[[{"%b":"%b"}]]}' % (text.encode(), text.encode()))
        assert refused(b'{"a":[[{"%b":[]}]]}' % text.encode()).reason is Rejection.TOO_DEEP


def test_array_elements_are_untouched():
    """Each element of an array is stored with its own bytes, whichever way the array is taken apart."""
    parts = [b'{ "IMEI":"1" }', b'{"a": [1,  {"b":"],["}]}', b'{"u":"\xc3\xa4"}']
    body = b" [" + b" ,\n".join(parts) + b"]\n"
    assert [event.value for event in parse(body, ndjson=False, limits=LIMITS)] == parts
    parts += [b'{"x":"\\ud800"}', b'{"\\\\uD800\\uDC00":"\\uDfff"}']  # msgspec cannot read these
    body = b" [ " + b" ,\n".join(parts) + b" ]\n"
    assert [event.value for event in parse(body, ndjson=False, limits=LIMITS)] == parts
    padding = b" " * AT_ONCE_MAX_BYTES  # a large array is taken apart in another way
    assert [event.value for event in parse(padding + body, ndjson=False, limits=LIMITS)] == parts
    for more in (b"{}", b"[1", b'"\\ud800"'):
        assert refused(padding + body[:-2] + b",{}," + more + b"]").reason in {Rejection.TOO_LARGE, Rejection.NOT_JSON}


def test_ndjson_lines():
    """Lines are events; blank ones and carriage returns are not part of them."""
    body = b'{"IMEI":"1"}\r\n\n  {"IMEI":"2"}\n'
    assert parse(body, ndjson=True, limits=LIMITS) == [Event(b"1", b'{"IMEI":"1"}'), Event(b"2", b'{"IMEI":"2"}')]


def test_bounds():
    """No event, too many events and too large ones are refused as a whole."""
    for body, ndjson in ((b"[]", False), (b" [ ] ", False), (b"\n\n", True), (b"", True)):
        assert refused(body, ndjson=ndjson).reason is Rejection.NO_EVENTS
    assert len(parse(b"[{},{},{},{},{}]", ndjson=False, limits=LIMITS)) == 5
    assert refused(b"[{},{},{},{},{},{}]").reason is Rejection.TOO_LARGE
    assert refused(b"{}\n" * 6, ndjson=True).reason is Rejection.TOO_LARGE
    exact = b'{"a":"' + b"x" * 1_992 + b'"}'
    assert len(exact) == 2_000
    assert one(exact)
    assert refused(exact + b" ").message == "body is 2001 bytes long; the limit for an event is 2000"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_object_is_an_event(value):
    """Any JSON object is stored with its own bytes, alone and in an array."""
    wide = Limits(events=5, event_bytes=1_000_000, nesting=100)
    body = json.dumps(value).encode()
    assert [e.value for e in parse(body, ndjson=False, limits=wide)] == [body]
    assert [e.value for e in parse(b"[%b, %b]" % (body, body), ndjson=False, limits=wide)] == [body, body]


ATOMS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"-", b"0", b"1e999", b".5", b"true", b"nul", b"NaN"]
ATOMS += [b'"IMEI"', b'"\\u0049MEI"', b'"a"', b'"x"', b'"\\ud800"', b'{"IMEI":"1"}', b"{}", b"[]", b"\x00", b"\n", b" "]
ATOMS += [b"\\ud800", b"\\uDC00", b"\\u0041", b"\\u00", b"\xff", b"\xed\xa0\x80", b"\xc3\xa4", b"\x0b", b"\xef\xbb\xbf"]


def refuse(constant: str) -> None:
    raise ValueError(constant)


@pytest.mark.fuzz
@given(st.lists(st.sampled_from(ATOMS), max_size=12).map(b"".join))
def test_what_is_an_event_is_what_json_says(inner):
    """Accepted is what Python's own JSON parser takes for an object, and the key is the IMEI that it finds in it."""
    body = b'{"a":' + inner + b"}"
    try:
        text = body.decode()
        value, end = json.JSONDecoder(parse_constant=refuse).raw_decode(text)
        assert not text[end:].strip(" \t\r\n")
    except (ValueError, AssertionError):
        assert refused(body).reason is Rejection.NOT_JSON
        return
    imei = value.get("IMEI")
    key = imei.encode("utf-8", "surrogatepass") if isinstance(imei, str) else b""
    usable = 0 < len(key) <= 64 and not any("\ud800" <= character <= "\udfff" for character in imei)
    wide = LIMITS._replace(nesting=100)
    assert parse(body, ndjson=False, limits=wide) == [Event(key if usable else None, body)]
    assert parse(b"[%b]" % body, ndjson=False, limits=wide) == [Event(key if usable else None, body)]


@pytest.mark.fuzz
@given(st.binary() | st.text(alphabet='[]{}",:0123456789.eE+-\\u tfn\n').map(str.encode), st.booleans())
def test_any_bytes_have_an_outcome(body, ndjson):
    """Any bytes are events or refused, never anything else; and orjson accepts no event that we do not."""
    try:
        events = parse(body, ndjson=ndjson, limits=LIMITS)
    except RequestError:
        if not ndjson and len(body) <= LIMITS.event_bytes:
            with pytest.raises(AssertionError):
                assert isinstance(_or_none(body), dict)
    else:
        assert all(isinstance(json.loads(event.value, parse_int=float), dict) for event in events)


def _or_none(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def gunzip(body: bytes, max_bytes: int) -> bytes:
    """All pieces in one go."""
    pieces = request_body.gunzip(body, max_bytes)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def test_gzip():
    """Gzip is undone, members one after the other too; never more than the limit is held; broken gzip is said to be."""
    assert gunzip(gzip.compress(b"abc") + gzip.compress(b"def"), 6) == b"abcdef"
    assert gunzip(b"", 6) == b""
    assert gunzip(gzip.compress(b"") * 64, 6) == b""
    assert gunzip(gzip.compress(bytes(1_000_000)), 1_000_000) == bytes(1_000_000)
    bomb = gzip.compress(bytes(50_000_000))
    broken = gzip.compress(b"abcdef")
    cases = (
        (bomb, Rejection.TOO_LARGE),
        (gzip.compress(b"abcd") + gzip.compress(b"efg"), Rejection.TOO_LARGE),
        (broken[:-3], Rejection.BAD_BODY),
        (broken[:-8] + b"xxxxxxxx", Rejection.BAD_BODY),
        (broken + b"garbage", Rejection.BAD_BODY),
        (b"not gzip", Rejection.BAD_BODY),
        (gzip.compress(b"") * 65, Rejection.BAD_BODY),  # each member would cost a copy of all that follow it
    )
    for body, reason in cases:
        with pytest.raises(RequestError) as caught:
            gunzip(body, 6)
        assert caught.value.reason is reason


WIDE = b'{"a":[' + b",".join([b"[]"] * 80_000) + b"]}"
UNPAIRED = b'{"s":"\\ud800","a":[' + b",".join([b"{}"] * 80_000) + b"]}"


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """What exists is not collected again, as the server sees to it when it starts."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("event", [WIDE, UNPAIRED], ids=["wide", "unpaired surrogate"])
def test_no_step_of_a_large_body_is_long(event):
    """Twelve large events of a body are twelve steps at least, none of which is most of the work."""
    wide = Limits(events=1_000, event_bytes=1_000_000, nesting=32)
    taken_s = []
    begun = time.process_time()
    for _ in iter_events(b"[" + b",".join([event] * 12) + b"]", ndjson=False, limits=wide):
        taken_s.append(time.process_time() - begun)
        begun = time.process_time()
    assert len(taken_s) == 12
    assert max(taken_s) < sum(taken_s) / 2


def test_surrogates_are_no_slow_way():
    """An event with an unpaired surrogate costs a few times one without, not a hundred times."""
    wide = Limits(events=1_000, event_bytes=1_000_000, nesting=32)

    def taken_s(body):
        begun = time.process_time()
        parse(body, ndjson=False, limits=wide)
        return time.process_time() - begun

    paired = UNPAIRED.replace(b"\\ud800", b"\\u0041")
    assert min(taken_s(UNPAIRED) for _ in range(5)) < 5 * min(taken_s(paired) for _ in range(5))


def test_elements_beyond_the_limit_are_not_made():
    """Megabytes of tiny elements are refused without an object for each of them."""
    wide = Limits(events=10, event_bytes=1_000_000, nesting=32)
    body = b"[" + b",".join([b"{}"] * 500_000) + b"]"
    tracemalloc.start()
    try:
        assert refused(body, limits=wide).reason is Rejection.TOO_LARGE
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < len(body) * 3
