"""The door: which path leads where, and the way of a request to its answer.

    admitted → body → signed → events → published → 200

Each step raises `RequestError` when it cannot go on; that becomes the answer, in `Endpoint.__call__` or, for events, in
`_Receipt.settled`; there is no other way to an error. What is not foreseen is logged and answered 503: the sender
repeats it, and nothing is lost.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache, partial
from http import HTTPStatus
from itertools import count
from secrets import token_hex
from typing import Any, NamedTuple

import orjson
import structlog
from aiohttp import hdrs
from aiohttp.http import HttpVersion10, HttpVersion11
from multidict import istr

from ingress import request_body as bodies
from ingress.access.admission import Admission
from ingress.docs_page import page
from ingress.dry_run import destinations, judge
from ingress.errors import Reason, RequestError, unavailable
from ingress.event_parser import AT_ONCE_MAX_BYTES, Event, Limits, each, parse
from ingress.http.connection import PromptHandler, Request
from ingress.http.responses import JSON, Response, accepted, refusal
from ingress.metrics_buffer import MetricsBuffer
from ingress.openapi import document
from ingress.publisher import Publisher, Record
from ingress.rejection_log import RejectionLog
from ingress.time_slicing import TimeSlicing
from runtime.platform.settings import Settings
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID, HEADER_TRACEPARENT
from schemas.validation import ClockLimits

log = structlog.get_logger(__name__)

EVENTS_PATH = "/api/events"
VALIDATE_PATH = "/api/events/validate"
_JSON_TYPES = frozenset({"application/json"})
_NDJSON_TYPES = frozenset({"application/x-ndjson", "application/jsonl"})
_TRACEPARENT = istr("traceparent")
_TRACEPARENT_MAX = 128

Route = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Response], None]


class _Form(NamedTuple):
    """How events are written in a body."""

    ndjson: bool
    gzip: bool


class _Receipt:
    """A request of events on its way: what the sender is told at its end."""

    __slots__ = ("answer", "arrival_ns", "door", "id", "request")

    def __init__(self, door: "Endpoint", request: Request, answer: Answer) -> None:
        self.door = door
        self.request = request
        self.answer = answer
        self.arrival_ns = door.clock_ns()
        self.id = door.next_receipt_id()
        door.inflight += 1

    def settled(self, failure: Exception | None) -> None:
        """Answers: the events are safe, or `failure` is why that cannot be said."""
        door = self.door
        door.inflight -= 1
        if failure is None:
            door.tally.acknowledged((door.clock_ns() - self.arrival_ns) / 1_000_000_000)
            self.answer(accepted(self.id))
        elif isinstance(failure, RequestError):
            door.notes.refused(failure, self.id, self.request.peer)
            self.answer(refusal(failure, self.id))
        else:
            self.answer(_fault(failure, self.request, self.id))


class Endpoint:
    """
    Answers requests: `await door(request)`, or by calling back where `door.prompt` has a handler.

    Publisher, admission and clock (since the epoch) are given.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        admitted: Admission,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._admission = admitted
        self._clock = ClockLimits.of_seconds(settings.future_skew_s, settings.clock_lead_max_s)
        self.clock_ns = clock_ns
        self._limits = Limits(
            settings.ingress_request_max_events, settings.ingress_event_max_bytes, settings.ingress_nesting_max
        )
        self._bodies = bodies.Bodies(
            max_bytes=settings.ingress_body_max_bytes,
            timeout_s=settings.ingress_body_timeout_s,
            held_max_bytes=settings.ingress_inflight_max_bytes,
        )
        self._turns = TimeSlicing()
        self._at_work: set[asyncio.Task[None]] = set()  # on large bodies
        self._receipt_prefix = token_hex(6)
        self._receipt_numbers = count(1)
        self.notes = RejectionLog()
        self.inflight = 0
        self.tally = MetricsBuffer()
        self.draining = False
        described = document(settings)
        self._routes: dict[str, dict[str, Route]] = {
            EVENTS_PATH: {"POST": self.receive_slowly},
            VALIDATE_PATH: {"POST": self.validate},
            "/openapi.json": _still(JSON, orjson.dumps(described)),
            "/docs": _still("text/html; charset=utf-8", page(described)),
            "/healthz": {"GET": self.healthz, "HEAD": self.healthz},
            "/readyz": {"GET": self.readyz, "HEAD": self.readyz},
        }
        self.prompt: dict[tuple[str, str], PromptHandler] = {("POST", EVENTS_PATH): self.receive}

    async def __call__(self, request: Request) -> Response:
        """The request's answer, whatever happens on the way."""
        try:
            return await self._route(request)(request)
        except RequestError as refused:
            return refusal(refused)
        except Exception as error:
            return _fault(error, request)

    def _route(self, request: Request) -> Route:
        if request.message.version not in (HttpVersion11, HttpVersion10):  # the parser lets 0.9 and 2.0 pass
            raise RequestError(Reason.BAD_REQUEST, "the request is not HTTP/1.1", close=True)
        path = request.message.path.partition("?")[0]
        methods = self._routes.get(path)
        if methods is None:
            raise RequestError(
                Reason.NOT_FOUND, f"there is nothing at this path: events are sent to POST {EVENTS_PATH}"
            )
        route = methods.get(request.message.method)
        if route is None:
            allowed = ", ".join(methods)
            raise RequestError(
                Reason.WRONG_METHOD, f"{request.message.method} is not possible here: {allowed} is", {"Allow": allowed}
            )
        return route

    def receive(self, request: Request, answer: Answer) -> None:
        """`POST /api/events`, all of it here: `answer` is called when Kafka has the events, or at once with why not."""
        receipt = _Receipt(self, request, answer)
        try:
            form, body = self._admit(request), self._bodies.whole(request.payload)
            if form.gzip or len(body) > AT_ONCE_MAX_BYTES or self._settings.ingress_strict:
                task = asyncio.get_running_loop().create_task(self._work(receipt, form, body))
                self._at_work.add(task)
                task.add_done_callback(self._at_work.discard)
            else:  # nearly always
                self._admission.check_body(request, body)
                self._publish(receipt, parse(body, ndjson=form.ndjson, limits=self._limits))
        except Exception as error:
            receipt.settled(error)

    async def receive_slowly(self, request: Request) -> Response:
        """The same where the body is still on its way."""
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        receipt = _Receipt(self, request, partial(_set_result, answered))
        try:
            form = self._admit(request)
            async with self._body(request) as body:
                await self._work(receipt, form, body)
        except Exception as error:
            receipt.settled(error)
        return await answered

    async def _work(self, receipt: _Receipt, form: _Form, body: bytes) -> None:
        """The rest of the way where it may take long."""
        try:
            events = await self._events(receipt.request, form, body)
            if self._settings.ingress_strict:
                await self._destinations(events, receipt.arrival_ns // 1_000)
            self._publish(receipt, events)
        except Exception as error:
            receipt.settled(error)

    def _publish(self, receipt: _Receipt, events: list[Event]) -> None:
        self._publisher.publish(_records(events, receipt), receipt.settled)

    async def validate(self, request: Request) -> Response:
        """`POST /api/events/validate`: the same way, but nothing is stored."""
        self.inflight += 1
        try:
            form = self._admit(request)
            async with self._body(request) as body:
                events = await self._events(request, form, body)
                going = await self._destinations(events, self.clock_ns() // 1_000)
        finally:
            self.inflight -= 1
        said = {"status": "success", "message": "Every rule is kept. Nothing was stored.", "events": going}
        return Response(HTTPStatus.OK, orjson.dumps(said))

    async def _destinations(self, events: list[Event], arrival_us: int) -> list[dict[str, Any]]:
        return destinations(await self._turns.take(judge(events, arrival_us, self._clock)))

    def next_receipt_id(self) -> str:
        """No other process and no other request has it."""
        return f"{self._receipt_prefix}-{next(self._receipt_numbers):x}"

    @contextlib.asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        if bodies.is_here(request.payload):
            yield self._bodies.whole(request.payload)
            return
        declared = request.message.headers.get(hdrs.CONTENT_LENGTH)
        if declared is not None and int(declared) > self._settings.ingress_body_max_bytes:
            raise bodies.too_large(self._settings.ingress_body_max_bytes)
        if hdrs.EXPECT in request.message.headers:
            request.protocol.invite_body(request.payload)
        async with self._bodies.hold(request.payload) as body:
            yield body

    async def _events(self, request: Request, form: _Form, body: bytes) -> list[Event]:
        self._admission.check_body(request, body)
        steps = await self._turns.take(self._steps(form, body))
        return [event for event in steps if event is not None]

    def _steps(self, form: _Form, body: bytes) -> Iterator[Event | None]:
        """A large body's events; None where there was work without one."""
        if form.gzip:
            body = yield from bodies.gunzip(body, self._settings.ingress_decompressed_max_bytes)
        events = each(body, ndjson=form.ndjson, limits=self._limits)
        yield None
        yield from events

    def _admit(self, request: Request) -> _Form:
        """All that can be known before the body is read."""
        if self.inflight > self._settings.ingress_inflight_max_requests:
            raise unavailable(Reason.OVERLOADED, "too many requests at once: send it again")
        self._admission.admit(request)
        headers = request.message.headers
        expectation = headers.get(hdrs.EXPECT)
        if expectation is not None and expectation.lower() != "100-continue":
            raise RequestError(Reason.WRONG_EXPECTATION, "Expect: only 100-continue is understood")
        return _form(headers.get(hdrs.CONTENT_TYPE), headers.get(hdrs.CONTENT_ENCODING))

    async def healthz(self, _request: Request) -> Response:
        """The process runs its loop."""
        return Response(HTTPStatus.OK, b'{"status":"ok"}')

    async def readyz(self, _request: Request) -> Response:
        """An event sent now would be stored: not stopping, and Kafka reachable this moment."""
        if self.draining:
            raise unavailable(Reason.SHUTTING_DOWN, "this process is stopping")
        try:
            async with asyncio.timeout(1):
                trouble = await self._publisher.unreachable()
        except TimeoutError:
            trouble = "Kafka does not answer within 1 s"
        if trouble is not None:
            raise unavailable(Reason.KAFKA_AWAY, trouble)
        return Response(HTTPStatus.OK, b'{"status":"ready"}')


def _fault(error: Exception, request: Request, receipt_id: str | None = None) -> Response:
    """What nobody foresaw: logged with its place, without its values, and answered so that the sender repeats it."""
    path, kind = request.message.path[:100], type(error).__name__
    log.error("a fault while answering", receipt_id=receipt_id, path=path, error=kind, exc_info=error)
    return refusal(unavailable(Reason.INTERNAL, "internal fault: send it again"), receipt_id)


def _still(content_type: str, body: bytes) -> dict[str, Route]:
    """A page that is always the same."""
    reply = Response(HTTPStatus.OK, body, content_type=content_type)

    async def show(_request: Request) -> Response:
        return reply

    return {"GET": show, "HEAD": show}


@lru_cache(maxsize=128)
def _form(content_type: str | None, encoding: str | None) -> _Form:
    return _Form(_is_ndjson(content_type), _is_gzip(encoding))


def _is_ndjson(content_type: str | None) -> bool:
    media_type, _, parameters = (content_type or "").partition(";")
    media_type = media_type.strip().lower()
    if media_type not in _JSON_TYPES and media_type not in _NDJSON_TYPES:
        found = repr(media_type[:100]) if media_type else "missing"
        raise RequestError(
            Reason.WRONG_MEDIA_TYPE,
            f"Content-Type is {found}: application/json (an event or an array) or application/x-ndjson is expected",
            {"Accept": "application/json, application/x-ndjson"},
        )
    name, _, charset = parameters.partition("=")
    if name.strip().lower() == "charset" and charset.strip().strip('"').lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise RequestError(Reason.WRONG_MEDIA_TYPE, f"the charset is {charset.strip()[:40]!r}: JSON is sent in UTF-8")
    return media_type in _NDJSON_TYPES


def _is_gzip(encoding: str | None) -> bool:
    name = (encoding or "identity").strip().lower()
    if name not in {"identity", "gzip", "x-gzip"}:
        raise RequestError(
            Reason.WRONG_MEDIA_TYPE,
            f"Content-Encoding is {name[:40]!r}: gzip or none is expected",
            {"Accept-Encoding": "gzip, identity"},
        )
    return name != "identity"


def _set_result(answered: asyncio.Future[Response], reply: Response) -> None:
    if not answered.done():  # cancelled: the process ends
        answered.set_result(reply)


def _records(events: list[Event], receipt: _Receipt) -> list[Record]:
    arrival_us = receipt.arrival_ns // 1_000
    headers = [(HEADER_ARRIVAL_US, b"%d" % arrival_us)]
    trace = receipt.request.message.headers.get(_TRACEPARENT)
    if trace is not None and len(trace) <= _TRACEPARENT_MAX and trace.isascii():
        headers.append((HEADER_TRACEPARENT, trace.encode()))
    timestamp_ms, receipt_id = arrival_us // 1_000, receipt.id.encode()
    if len(events) == 1:
        headers.append((HEADER_RECEIPT_ID, receipt_id))
        return [Record(events[0].key, events[0].value, timestamp_ms, headers)]
    return [
        Record(event.key, event.value, timestamp_ms, [*headers, (HEADER_RECEIPT_ID, b"%b.%d" % (receipt_id, index))])
        for index, event in enumerate(events)
    ]
