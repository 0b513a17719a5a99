"""Content-Type and Content-Encoding: any header has an outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.content_negotiation import BodyFormat, body_format, parse_content_type
from ingress.errors import Rejection, RequestError


def test_the_formats():
    """JSON and NDJSON, with and without gzip."""
    assert body_format("application/json", None) == BodyFormat(ndjson=False, gzip=False)
    assert body_format("application/x-ndjson; charset=utf-8", "gzip") == BodyFormat(ndjson=True, gzip=True)
    assert body_format("application/jsonl;", "identity") == BodyFormat(ndjson=True, gzip=False)


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("", ("", [])),
        (";", ("", [])),
        ("application/json;;", ("application/json", [])),
        ("application/json; charset", ("application/json", [""])),
        ("application/json; charset=", ("application/json", [""])),
        ('application/json; x="charset=utf-16"', ("application/json", [])),
        ("application/json; charset*=utf-8''utf-16", ("application/json", ["utf-16"])),
        ("text/html, application/json", ("text/html, application/json", [])),
    ],
)
def test_odd_headers(header, parsed):
    """A quoted parameter is one value, an empty one is none, a list is not a media type."""
    assert parse_content_type(header) == parsed


@pytest.mark.fuzz
@given(st.text(alphabet='aAcharset*0123"\\;=/ ,\t()<>\x80ü', max_size=300), st.sampled_from(["", "application/json;"]))
def test_any_content_type_has_an_outcome(text, start):
    """Any header is a format or rejected with 415, never anything else."""
    rejected = None
    try:
        body_format(start + text, None)
    except RequestError as error:
        rejected = error.reason
    assert rejected in {None, Rejection.WRONG_MEDIA_TYPE}
