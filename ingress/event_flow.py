"""From a request to stored events: `receive` is what happens to one POST, from top to bottom.

Each step raises `RequestError` when it rejects the request; `Endpoint.handle` turns that into the response.
"""

import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import count
from secrets import token_hex
from typing import Any

import orjson
from multidict import CIMultiDictProxy, istr

from ingress.access.admission import Admission
from ingress.batching import Record
from ingress.content_negotiation import BodyFormat, negotiate
from ingress.delivery import Delivery
from ingress.dry_run import destinations, validated
from ingress.errors import Rejection, RequestError, unavailable
from ingress.event_parser import AT_ONCE_MAX_BYTES, Event, Limits, iter_events, parse
from ingress.http.connection import Request
from ingress.http.responses import Response, accepted
from ingress.metrics_buffer import MetricsBuffer
from ingress.publisher import Publisher
from ingress.request_body import BodyReader, gunzip, has_arrived
from ingress.time_slicing import TimeSlicing
from runtime.platform import metrics as registry
from runtime.platform.clock import clock_limits
from runtime.platform.settings import Settings
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID, HEADER_SENDER, HEADER_TRACEPARENT

_TRACEPARENT = istr("traceparent")
_TRACEPARENT_MAX = 128  # characters


class EventFlow:
    """The handlers that receive events or only validate them; publisher, admission and clock (epoch) are passed in."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        admission: Admission,
        metrics: MetricsBuffer,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._publisher = publisher
        self._admission = admission
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._strict = settings.ingress_strict
        self._clock_limits = clock_limits(settings)
        self._inflight_max = settings.ingress_inflight_max_requests
        self._decompressed_max_bytes = settings.ingress_decompressed_max_bytes
        self._limits = Limits(
            settings.ingress_request_max_events, settings.ingress_event_max_bytes, settings.ingress_nesting_max
        )
        self._bodies = BodyReader(
            max_bytes=settings.ingress_body_max_bytes,
            timeout_s=settings.ingress_body_timeout_s,
            held_max_bytes=settings.ingress_inflight_max_bytes,
        )
        self._time_slicing = TimeSlicing()
        self._receipt_prefix = token_hex(6)  # no other process has it
        self._receipt_numbers = count(1)
        self.inflight = 0  # requests

    async def receive(self, request: Request) -> Response:
        """Handle `POST /api/events`: 200 once Kafka has acknowledged every event of the request.

        If the body has arrived and is small, as nearly always, nothing waits before the publish.
        """
        arrival_ns = self._clock_ns()
        receipt_id = request.receipt_id = f"{self._receipt_prefix}-{next(self._receipt_numbers):x}"
        self.inflight += 1
        sender: str | None = None
        try:
            if self.inflight > self._inflight_max:
                raise _too_many_requests()
            sender = self._admission.admit(request)
            body_format = negotiate(request.message.headers)
            body = self._bodies.take(request) if has_arrived(request.payload) else await self._bodies.read(request)
            secret_name = self._admission.check_body(request, body)
            sender = sender or secret_name
            if body_format.gzip or len(body) > AT_ONCE_MAX_BYTES:
                events = await self._parse_in_slices(body, body_format)
            else:
                events = parse(body, ndjson=body_format.ndjson, limits=self._limits)
            if self._strict:
                await self._destinations(events, arrival_ns // 1_000)
            delivery = Delivery()
            self._publisher.publish(
                _records(events, arrival_ns // 1_000, receipt_id, sender, request.message.headers), delivery
            )
            await delivery
        except RequestError as error:
            if sender is not None:
                registry.INGRESS_REFUSALS.metric.labels(sender, error.reason).inc()
            raise
        finally:
            self.inflight -= 1
            if request.held_bytes:
                self._bodies.release(request)
        self._metrics.acknowledged((self._clock_ns() - arrival_ns) / 1_000_000_000)
        return accepted(receipt_id)

    async def validate(self, request: Request) -> Response:
        """Handle `POST /api/events/validate`: the same checks and every rule, but nothing is stored."""
        self.inflight += 1
        try:
            if self.inflight > self._inflight_max:
                raise _too_many_requests()
            self._admission.admit(request)
            body_format = negotiate(request.message.headers)
            body = self._bodies.take(request) if has_arrived(request.payload) else await self._bodies.read(request)
            self._admission.check_body(request, body)
            events = await self._parse_in_slices(body, body_format)
            found = await self._destinations(events, self._clock_ns() // 1_000)
        finally:
            self.inflight -= 1
            self._bodies.release(request)
        answer = {"status": "success", "message": "No rule is broken. Nothing was stored.", "events": found}
        return Response(HTTPStatus.OK, orjson.dumps(answer))

    async def _parse_in_slices(self, body: bytes, body_format: BodyFormat) -> list[Event]:
        """Decompress and parse, a time slice at a time."""
        steps = await self._time_slicing.run(self._steps(body, body_format))
        return [event for event in steps if event is not None]

    def _steps(self, body: bytes, body_format: BodyFormat) -> Iterator[Event | None]:
        """Yield the body's events, and None after work without one."""
        if body_format.gzip:
            body = yield from gunzip(body, self._decompressed_max_bytes)
        events = iter_events(body, ndjson=body_format.ndjson, limits=self._limits)
        yield None
        yield from events

    async def _destinations(self, events: list[Event], arrival_us: int) -> list[dict[str, Any]]:
        """Determine identity and topic of every event. Raise `RequestError` (422) with every broken rule."""
        return destinations(await self._time_slicing.run(validated(events, arrival_us, self._clock_limits)))


def _too_many_requests() -> RequestError:
    return unavailable(Rejection.OVERLOADED, "too many requests in flight; retry")


def _records(
    events: list[Event], arrival_us: int, receipt_id: str, sender: str | None, headers: "CIMultiDictProxy[str]"
) -> list[Record]:
    """Make the raw records; in a request of several events, the receipt id ends with the event's index."""
    common = [(HEADER_ARRIVAL_US, b"%d" % arrival_us)]
    if sender is not None:
        common.append((HEADER_SENDER, sender.encode()))
    traceparent = headers.get(_TRACEPARENT)
    if traceparent is not None and len(traceparent) <= _TRACEPARENT_MAX and traceparent.isascii():
        common.append((HEADER_TRACEPARENT, traceparent.encode()))
    timestamp_ms, receipt = arrival_us // 1_000, receipt_id.encode()
    if len(events) == 1:
        common.append((HEADER_RECEIPT_ID, receipt))
        return [Record(events[0].key, events[0].value, timestamp_ms, common)]
    return [
        Record(event.key, event.value, timestamp_ms, [*common, (HEADER_RECEIPT_ID, b"%b.%d" % (receipt, index))])
        for index, event in enumerate(events)
    ]
