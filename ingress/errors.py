"""Why a request is rejected: the one table from rejection to HTTP status.

Each step of a request raises `RequestError(reason, message)`. The message is for the integrator: it says what was
found and what to send instead. Only 503 and 429 ask the sender to retry the same bytes.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any


class Rejection(StrEnum):
    """Code of a rejection: a label of `eventpush_ingress_replies_total` and a section of the OpenAPI document."""

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
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


#: Status and meaning of every rejection.
STATUS: dict[Rejection, tuple[HTTPStatus, str]] = {
    Rejection.BAD_REQUEST: (HTTPStatus.BAD_REQUEST, "not a valid HTTP/1.1 request, or a header exceeds its limit"),
    Rejection.BAD_BODY: (
        HTTPStatus.BAD_REQUEST,
        "the body does not match its headers: broken gzip, bad chunks or cut off",
    ),
    Rejection.NOT_JSON: (HTTPStatus.BAD_REQUEST, "the body, or an event in it, is not JSON (RFC 8259) in UTF-8"),
    Rejection.NOT_OBJECT: (HTTPStatus.BAD_REQUEST, "an event is JSON, but not an object"),
    Rejection.TOO_DEEP: (HTTPStatus.BAD_REQUEST, "objects and arrays are nested too deeply"),
    Rejection.NO_EVENTS: (HTTPStatus.BAD_REQUEST, "the array or NDJSON contains no event"),
    Rejection.UNAUTHORIZED: (HTTPStatus.UNAUTHORIZED, "the bearer token is missing, unknown or expired"),
    Rejection.BAD_SIGNATURE: (
        HTTPStatus.UNAUTHORIZED,
        "the signature is missing, expired or does not match the body",
    ),
    Rejection.FORBIDDEN_ADDRESS: (HTTPStatus.FORBIDDEN, "the sender's address is not on the allowlist"),
    Rejection.NOT_FOUND: (HTTPStatus.NOT_FOUND, "no such path"),
    Rejection.WRONG_METHOD: (HTTPStatus.METHOD_NOT_ALLOWED, "the path does not allow this method"),
    Rejection.TIMED_OUT: (HTTPStatus.REQUEST_TIMEOUT, "headers or body took too long to arrive"),
    Rejection.TOO_LARGE: (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "the body, an event, or the number of events exceeds its limit",
    ),
    Rejection.WRONG_MEDIA_TYPE: (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "the media type, charset or content encoding is not supported",
    ),
    Rejection.WRONG_EXPECTATION: (HTTPStatus.EXPECTATION_FAILED, "an Expect header other than 100-continue"),
    Rejection.BROKEN_RULES: (HTTPStatus.UNPROCESSABLE_ENTITY, "strict mode: the event breaks rules; all are listed"),
    Rejection.TOO_MANY_REQUESTS: (HTTPStatus.TOO_MANY_REQUESTS, "more requests per second than allowed"),
    Rejection.OVERLOADED: (HTTPStatus.SERVICE_UNAVAILABLE, "too much in flight: retry"),
    Rejection.KAFKA_AWAY: (HTTPStatus.SERVICE_UNAVAILABLE, "not acknowledged by Kafka in time: retry"),
    Rejection.PAUSED: (HTTPStatus.SERVICE_UNAVAILABLE, "the topics are getting more partitions: retry"),
    Rejection.SHUTTING_DOWN: (HTTPStatus.SERVICE_UNAVAILABLE, "this process is shutting down: retry"),
    Rejection.INTERNAL: (HTTPStatus.SERVICE_UNAVAILABLE, "internal error, logged: retry"),
}


@dataclass(eq=False)
class RequestError(Exception):
    """A rejected request: the reason, a message for the integrator, and what else the response needs."""

    reason: Rejection
    message: str
    headers: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)  # every broken rule
    close: bool = False  # the rest of the connection cannot be trusted, or is not worth reading

    def __post_init__(self) -> None:
        super().__init__(self.message)


def unavailable(reason: Rejection, message: str, retry_after_s: int = 1) -> RequestError:
    """Make a 503: the sender retries the same bytes after `retry_after_s` seconds."""
    return RequestError(reason, message, {"Retry-After": str(retry_after_s)})
