"""Why a request is not answered 200: the one table from reason to status.

A step of the request's way raises `RequestError(reason, message)`; the message is for the integrator and says what was
found and what is expected. Only 503 and 429 invite the same bytes again.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any


class Reason(StrEnum):
    """Bounded codes of refusal: labels of `eventpush_ingress_replies_total` and a section of the OpenAPI document."""

    BAD_REQUEST = "bad_request"
    BAD_BODY = "bad_body"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    TOO_DEEP = "too_deep"
    NO_EVENTS = "no_events"
    BROKEN_RULES = "broken_rules"
    UNAUTHORIZED = "unauthorized"
    BAD_SIGNATURE = "bad_signature"
    FORBIDDEN_ADDRESS = "forbidden_address"
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    TIMED_OUT = "timed_out"
    TOO_LARGE = "too_large"
    WRONG_MEDIA_TYPE = "wrong_media_type"
    WRONG_EXPECTATION = "wrong_expectation"
    TOO_MANY_REQUESTS = "too_many_requests"
    OVERLOADED = "overloaded"
    KAFKA_AWAY = "kafka_away"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


#: Every reason's status and meaning.
STATUS: dict[Reason, tuple[HTTPStatus, str]] = {
    Reason.BAD_REQUEST: (HTTPStatus.BAD_REQUEST, "the bytes are not an HTTP/1.1 request, or a header is out of bounds"),
    Reason.BAD_BODY: (HTTPStatus.BAD_REQUEST, "the body is not what its headers say: broken gzip, bad chunks, cut off"),
    Reason.NOT_JSON: (HTTPStatus.BAD_REQUEST, "the body, or an event in it, is not JSON (RFC 8259) in UTF-8"),
    Reason.NOT_OBJECT: (HTTPStatus.BAD_REQUEST, "an event is JSON, but not an object"),
    Reason.TOO_DEEP: (HTTPStatus.BAD_REQUEST, "objects and arrays are nested too deep"),
    Reason.NO_EVENTS: (HTTPStatus.BAD_REQUEST, "the array or NDJSON has no event in it"),
    Reason.UNAUTHORIZED: (HTTPStatus.UNAUTHORIZED, "the bearer token is missing or not one of ours"),
    Reason.BAD_SIGNATURE: (HTTPStatus.UNAUTHORIZED, "the signature is missing, too old, or not that of these bytes"),
    Reason.FORBIDDEN_ADDRESS: (HTTPStatus.FORBIDDEN, "the sender's address is not on the allowlist"),
    Reason.NOT_FOUND: (HTTPStatus.NOT_FOUND, "there is nothing at this path"),
    Reason.WRONG_METHOD: (HTTPStatus.METHOD_NOT_ALLOWED, "the path exists, with other methods"),
    Reason.TIMED_OUT: (HTTPStatus.REQUEST_TIMEOUT, "headers or body took too long to arrive"),
    Reason.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body, an event, or the number of events is too large"),
    Reason.WRONG_MEDIA_TYPE: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the media type, charset or encoding is not accepted"),
    Reason.WRONG_EXPECTATION: (HTTPStatus.EXPECTATION_FAILED, "an Expect header other than 100-continue"),
    Reason.BROKEN_RULES: (HTTPStatus.UNPROCESSABLE_ENTITY, "strict mode: the event breaks rules; all are listed"),
    Reason.TOO_MANY_REQUESTS: (HTTPStatus.TOO_MANY_REQUESTS, "more requests than the set rate"),
    Reason.OVERLOADED: (HTTPStatus.SERVICE_UNAVAILABLE, "too much is in flight: send it again later"),
    Reason.KAFKA_AWAY: (HTTPStatus.SERVICE_UNAVAILABLE, "Kafka has not acknowledged in time: send it again"),
    Reason.SHUTTING_DOWN: (HTTPStatus.SERVICE_UNAVAILABLE, "this process is stopping: send it again"),
    Reason.INTERNAL: (HTTPStatus.SERVICE_UNAVAILABLE, "a fault of ours, logged: send it again"),
}


@dataclass(eq=False)
class RequestError(Exception):
    """A request that is not accepted: why, in words for the integrator, and what else belongs to the answer."""

    reason: Reason
    message: str
    headers: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)  # every broken rule
    close: bool = False  # what follows on the connection cannot be trusted or is not worth reading

    def __post_init__(self) -> None:
        super().__init__(self.message)


def unavailable(reason: Reason, message: str, retry_after_s: int = 1) -> RequestError:
    """A 503: the same bytes are welcome after `retry_after_s` seconds."""
    return RequestError(reason, message, {"Retry-After": str(retry_after_s)})
