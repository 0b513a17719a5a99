"""The route table, and how every outcome of a request becomes its response.

POST /api/events           EventFlow.receive    admit → body → signature → events → publish → 200
POST /api/events/validate  EventFlow.validate
GET  /openapi.json, /docs, /healthz, /readyz    static_pages
"""

import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp.http import HttpVersion10, HttpVersion11

from ingress.access.admission import Admission
from ingress.docs_page import page
from ingress.errors import Rejection, RequestError, unavailable
from ingress.event_flow import EventFlow
from ingress.http.connection import Request
from ingress.http.responses import Response, error_response
from ingress.metrics_buffer import MetricsBuffer
from ingress.openapi import document
from ingress.publisher import Publisher
from ingress.rejection_log import RejectionLog
from ingress.static_pages import Route, readiness_page, static_page
from runtime.platform.settings import Settings

log = structlog.get_logger(__name__)

EVENTS_PATH = "/api/events"
VALIDATE_PATH = "/api/events/validate"


class Endpoint:
    """The routes and their error handling; publisher, admission and clock (epoch) are passed in."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        admission: Admission,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.metrics = MetricsBuffer()
        self.flow = EventFlow(settings, publisher, admission, self.metrics, clock_ns)
        self.draining = False  # the process stops: /readyz says so
        self._rejections = RejectionLog()
        described = document(settings)
        self._routes: dict[str, dict[str, Route]] = {
            EVENTS_PATH: {"POST": self.flow.receive},
            VALIDATE_PATH: {"POST": self.flow.validate},
            "/openapi.json": static_page(orjson.dumps(described)),
            "/docs": static_page(page(described), "text/html; charset=utf-8"),
            "/healthz": static_page(b'{"status":"ok"}'),
            "/readyz": readiness_page(lambda: self.draining, publisher.unreachable),
        }

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Route the request: return its handler's coroutine. Both raise `RequestError` to reject the request."""
        message = request.message
        if message.version not in (HttpVersion11, HttpVersion10):  # the parser lets 0.9 and 2.0 pass
            raise RequestError(Rejection.BAD_REQUEST, "not an HTTP/1.1 request", close=True)
        methods = self._routes.get(message.path) or self._routes.get(_path(message.path))
        if methods is None:
            raise RequestError(Rejection.NOT_FOUND, f"no such path; send events to POST {EVENTS_PATH}")
        route = methods.get(message.method)
        if route is None:
            allowed = ", ".join(methods)
            text = f"method {message.method} not allowed; use {allowed}"
            raise RequestError(Rejection.WRONG_METHOD, text, {"Allow": allowed})
        return route(request)

    def error_response(self, request: Request, error: Exception) -> Response:
        """Make the response to a request whose handler has failed: every error becomes a response here."""
        if isinstance(error, RequestError):
            if request.receipt_id is not None:
                self._rejections.log(error, request.receipt_id, request.peer)
            return error_response(error, request.receipt_id)
        return _unexpected(error, request)


def _path(target: str) -> str:
    """Reduce a request target to its path: in origin-form or absolute-form (RFC 9112, section 3.2), without a query."""
    if target.partition(":")[0].lower() in {"http", "https"}:
        with contextlib.suppress(ValueError):  # not a URI: there is no such path
            return urlsplit(target).path
    return target.partition("?")[0]


def _unexpected(error: Exception, request: Request) -> Response:
    """Log an unexpected error with its traceback (without values), and answer 503 so that the sender retries."""
    path, kind = request.message.path[:100], type(error).__name__
    log.error("request failed", receipt_id=request.receipt_id, path=path, error=kind, exc_info=error)
    return error_response(unavailable(Rejection.INTERNAL, "internal error; retry"), request.receipt_id)
