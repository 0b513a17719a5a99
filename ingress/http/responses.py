"""Answers as bytes: the status line, the headers and the API's JSON body, ready to be written."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from ingress.errors import STATUS, RequestError

ACCEPTED_BODY = b'{"status":"success","message":"Event received successfully."}'
JSON = "application/json"


class Response(NamedTuple):
    """
    An answer; `close` ends the connection after it, `reason` is what the metrics count it under.

    `wire` is the whole answer for a connection that stays, where it is known beforehand.
    """

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON
    close: bool = False
    reason: str = ""
    wire: bytes = b""


_OK = HTTPStatus.OK  # found in its class it costs a call (Python 3.11)


def accepted(receipt_id: str) -> Response:
    """The API's success answer."""
    wire = b"%b%b\r\n\r\n%b" % (_accepted_head(int(time.time())), receipt_id.encode(), ACCEPTED_BODY)
    return Response(_OK, ACCEPTED_BODY, (("X-Receipt-Id", receipt_id),), wire=wire)


@lru_cache(maxsize=1)
def _accepted_head(now_s: int) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(ACCEPTED_BODY)}\r\nDate: {_date(now_s)}\r\nX-Receipt-Id: "
    )
    return head.encode()


def refusal(refused: RequestError, receipt_id: str | None = None) -> Response:
    """The API's error answer."""
    headers = tuple(refused.headers.items())
    if receipt_id is not None:
        headers += (("X-Receipt-Id", receipt_id),)
    status, _ = STATUS[refused.reason]
    return Response(
        status, error_body(refused.message, refused.errors), headers, close=refused.close, reason=refused.reason
    )


def error_body(message: str, errors: list[dict[str, Any]]) -> bytes:
    """`{"status":"error","message":…}`, and `errors` where rules are broken."""
    body: dict[str, Any] = {"status": "error", "message": message}
    return orjson.dumps(body | {"errors": errors} if errors else body)


def encoded(reply: Response, *, keep_alive: bool, http_1_0: bool = False, head_only: bool = False) -> bytes:
    """The answer on the wire."""
    lines = [
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
        f"Date: {_date(int(time.time()))}",
    ]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if not keep_alive:
        lines.append("Connection: close")
    elif http_1_0:
        lines.append("Connection: keep-alive")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + reply.body


@lru_cache(maxsize=1)
def _date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)
