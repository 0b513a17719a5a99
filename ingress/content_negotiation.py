"""What the request's headers say about its body: media type, charset, content encoding, expectation."""

from email.message import Message
from email.utils import collapse_rfc2231_value
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs
from multidict import CIMultiDictProxy

from ingress.errors import Rejection, RequestError

_JSON_TYPES = frozenset({"application/json"})
_NDJSON_TYPES = frozenset({"application/x-ndjson", "application/jsonl"})
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})
_CONTENT_TYPE_MAX = 256  # characters; the parser's time grows with their square
_SHOWN_MAX = 100  # characters of a header in a message


class BodyFormat(NamedTuple):
    """How events are written in a body."""

    ndjson: bool
    gzip: bool


def negotiate(headers: "CIMultiDictProxy[str]") -> BodyFormat:
    """Determine the body's format. Raise `RequestError` (415, 417) for headers that are not supported."""
    expectation = headers.get(hdrs.EXPECT)
    if expectation is not None and expectation.lower() != "100-continue":
        shown = expectation[:_SHOWN_MAX]
        raise RequestError(Rejection.WRONG_EXPECTATION, f"Expect {shown!r} not supported; only 100-continue is")
    return body_format(headers.get(hdrs.CONTENT_TYPE), headers.get(hdrs.CONTENT_ENCODING))


@lru_cache(maxsize=128)
def body_format(content_type: str | None, content_encoding: str | None) -> BodyFormat:
    """Determine the format from Content-Type and Content-Encoding. Raise `RequestError` (415)."""
    return BodyFormat(_is_ndjson(content_type or ""), _is_gzip(content_encoding))


def _is_ndjson(content_type: str) -> bool:
    media_type, charsets = parse_content_type(content_type)
    if media_type not in _JSON_TYPES | _NDJSON_TYPES:
        found = f"{media_type[:_SHOWN_MAX]!r} not supported" if media_type else "missing"
        raise RequestError(
            Rejection.WRONG_MEDIA_TYPE,
            f"Content-Type {found}; send application/json (an event or an array) or application/x-ndjson",
            {"Accept": "application/json, application/x-ndjson"},
        )
    for charset in charsets:
        if charset.lower() not in _CHARSETS:
            shown = charset[:_SHOWN_MAX]
            raise RequestError(Rejection.WRONG_MEDIA_TYPE, f"charset {shown!r} not supported; send JSON in UTF-8")
    return media_type in _NDJSON_TYPES


def parse_content_type(header: str) -> tuple[str, list[str]]:
    """Parse media type (in lower case) and charsets; other parameters are ignored (RFC 9110, section 8.3.1)."""
    if len(header) > _CONTENT_TYPE_MAX:
        message = f"Content-Type is {len(header)} characters long; the limit is {_CONTENT_TYPE_MAX}"
        raise RequestError(Rejection.WRONG_MEDIA_TYPE, message)
    parsed = Message()
    parsed[hdrs.CONTENT_TYPE] = header
    (media_type, _), *parameters = parsed.get_params([("", "")])
    charsets = [collapse_rfc2231_value(value).strip() for name, value in parameters if name.lower() == "charset"]
    return media_type.strip().lower(), charsets


def _is_gzip(content_encoding: str | None) -> bool:
    name = (content_encoding or "identity").strip().lower()
    if name not in {"identity", "gzip", "x-gzip"}:
        raise RequestError(
            Rejection.WRONG_MEDIA_TYPE,
            f"Content-Encoding {name[:_SHOWN_MAX]!r} not supported; send gzip or none",
            {"Accept-Encoding": "gzip, identity"},
        )
    return name != "identity"
