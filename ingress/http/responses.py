"""HTTP responses as bytes: status line, headers and the API's JSON body, ready to be written."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
import orjson

from ingress.errors import STATUS, RequestError

ACCEPTED_BODY = b'{"status":"success","message":"Event received successfully."}'
JSON = "application/json"


class Response(msgspec.Struct, frozen=True, gc=False):
    """A response; `close` ends the connection after it, `reason` is its label in the metrics (empty: 200).

    `wire` is the complete response for an HTTP/1.1 connection that stays open, where it is known in advance.
    """

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON
    close: bool = False
    reason: str = ""
    wire: bytes = b""


_OK = HTTPStatus.OK  # a look-up in the enum costs a call on Python 3.11


def accepted(receipt_id: str) -> Response:
    """Make the API's success response."""
    wire = b"%b%b\r\n\r\n%b" % (_accepted_head(int(time.time())), receipt_id.encode(), ACCEPTED_BODY)
    return Response(_OK, ACCEPTED_BODY, (("X-Receipt-Id", receipt_id),), wire=wire)


@lru_cache(maxsize=1)
def _accepted_head(now_s: int) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(ACCEPTED_BODY)}\r\nDate: {_date(now_s)}\r\nX-Receipt-Id: "
    )
    return head.encode()


def error_response(error: RequestError, receipt_id: str | None = None) -> Response:
    """Make the API's error response."""
    headers = tuple(error.headers.items())
    if receipt_id is not None:
        headers += (("X-Receipt-Id", receipt_id),)
    status, _ = STATUS[error.reason]
    return Response(status, _error_body(error.message, error.errors), headers, close=error.close, reason=error.reason)


def _error_body(message: str, errors: list[dict[str, Any]]) -> bytes:
    body: dict[str, Any] = {"status": "error", "message": message}
    return orjson.dumps(body | {"errors": errors} if errors else body)


def encode(response: Response, *, keep_alive: bool, http_1_0: bool = False, head_only: bool = False) -> bytes:
    """Encode the response for the wire; `head_only` answers HEAD."""
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        f"Date: {_date(int(time.time()))}",
    ]
    lines += [f"{name}: {value}" for name, value in response.headers]
    if not keep_alive:
        lines.append("Connection: close")
    elif http_1_0:
        lines.append("Connection: keep-alive")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + response.body


@lru_cache(maxsize=1)
def _date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)
