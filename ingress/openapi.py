"""The OpenAPI 3.1 document, derived from what the ingress uses: rejections, the event's definition, limits.

Nothing is stated twice: statuses and reasons come from `errors`, the event's fields and limits from `schemas`, sizes
from the settings. So the document describes this very process.
"""

from http import HTTPStatus
from importlib.metadata import version
from itertools import groupby
from typing import Any

from ingress.errors import STATUS, Rejection
from runtime.platform.settings import Settings
from schemas.event_types import TYPES
from schemas.sent_schema import event_schema, example

#: Rejections outside every operation of the document: another path, another method.
_WITHOUT_PATH = {Rejection.NOT_FOUND, Rejection.WRONG_METHOD}
_STRICT_ONLY = {Rejection.BROKEN_RULES}


def document(settings: Settings) -> dict[str, Any]:
    """Make the document for an ingress with these settings."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "eventpush",
            "version": version("eventpush"),
            "summary": "Receives events of the Events Push API.",
            "description": _description(settings),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "events"}, {"name": "health"}],
        "paths": {
            "/api/events": {"post": _receive(settings)},
            "/api/events/validate": {"post": _validate(settings)},
            "/healthz": {"get": _health("healthz", "Whether the process runs", ())},
            "/readyz": {"get": _health("readyz", "Whether an event sent now would be stored", (503,))},
        },
        "components": {
            "schemas": _schemas(),
            "responses": {
                reason.name.title().replace("_", ""): _error_response(STATUS[reason][0], [reason])
                for reason in sorted(_WITHOUT_PATH)
            },
            "securitySchemes": _security_schemes(settings),
        },
    }


def _description(settings: Settings) -> str:
    stored = (
        "An event that breaks a rule is rejected with 422, which lists every broken rule."
        if settings.ingress_strict
        else "Any JSON object is stored; one that breaks a rule goes to the dead letters with every reason."
    )
    return (
        "200 means that Kafka has stored the event. On 503 and 429, and only then, retry the same bytes after "
        f"`Retry-After`. {stored} "
        f"Limits: a body of {settings.ingress_body_max_bytes} bytes as sent and "
        f"{settings.ingress_decompressed_max_bytes} after gzip; an event of {settings.ingress_event_max_bytes} bytes, "
        f"nested {settings.ingress_nesting_max} levels deep; {settings.ingress_request_max_events} events per request. "
        "A repeated event is answered 200 like the first and counted once."
    )


def _receive(settings: Settings) -> dict[str, Any]:
    return {
        "operationId": "receiveEvents",
        "tags": ["events"],
        "summary": "Send one event or several",
        "description": "Several events (an array, or one per line) are accepted all together or not at all.",
        "security": _security(settings),
        "parameters": [_traceparent()],
        "requestBody": _request_body(strict=settings.ingress_strict),
        "responses": {
            "200": {
                "description": "Kafka has stored every event of the request.",
                "headers": {"X-Receipt-Id": _receipt_header()},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Success"}}},
            },
            **_errors(_STRICT_ONLY | _WITHOUT_PATH if not settings.ingress_strict else _WITHOUT_PATH, settings),
        },
    }


def _validate(settings: Settings) -> dict[str, Any]:
    return {
        "operationId": "validateEvents",
        "tags": ["events"],
        "summary": "Validate an event without storing it",
        "description": "Lists every broken rule, or the identity and the topic that the event would get.",
        "security": _security(settings),
        "requestBody": _request_body(strict=True),
        "responses": {
            "200": {
                "description": "No rule is broken. Nothing was stored.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Validated"}}},
            },
            **_errors(_WITHOUT_PATH, settings),
        },
    }


def _health(name: str, summary: str, failures: tuple[int, ...]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    status = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    responses: dict[str, Any] = {
        "200": {"description": "Yes.", "content": {"application/json": {"schema": status}}},
        "400": {"description": "Not a valid HTTP/1.1 request.", "content": error},
    }
    for failure in failures:
        responses[str(failure)] = {
            "description": "No, and why.",
            "headers": {"Retry-After": _retry_after()},
            "content": error,
        }
    return {"operationId": name, "tags": ["health"], "summary": summary, "responses": responses}


def _request_body(*, strict: bool) -> dict[str, Any]:
    event: dict[str, Any] = {"$ref": "#/components/schemas/Event"}
    if not strict:  # any JSON object is stored
        event = {"anyOf": [event, {"type": "object"}]}
    some = {"oneOf": [event, {"type": "array", "minItems": 1, "items": event}]}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": some, "examples": examples()},
            "application/x-ndjson": {"schema": {"type": "string", "description": "One event per line."}},
        },
    }


def examples() -> dict[str, Any]:
    """Make an example of every event type that the API names."""
    return {name: {"summary": name.replace("_", " "), "value": example(name)} for name in TYPES}


def _errors(left_out: set[Rejection], settings: Settings) -> dict[str, Any]:
    """Make the error responses by status, each with an example for every reason."""
    reasons = sorted((r for r in STATUS if r not in left_out and _possible(r, settings)), key=lambda r: STATUS[r][0])
    return {
        str(status.value): _error_response(status, list(group))
        for status, group in groupby(reasons, key=lambda r: STATUS[r][0])
    }


def _possible(reason: Rejection, settings: Settings) -> bool:
    """Return whether these settings can cause the rejection: 429 only with a rate limit, and so on."""
    return {
        Rejection.UNAUTHORIZED: bool(settings.ingress_tokens or settings.ingress_tokens_file),
        Rejection.BAD_SIGNATURE: settings.ingress_verifier != "none",
        Rejection.FORBIDDEN_ADDRESS: bool(settings.ingress_allow),
        Rejection.TOO_MANY_REQUESTS: bool(settings.ingress_rate_per_token or settings.ingress_rate_per_address),
    }.get(reason, True)


def _error_response(status: HTTPStatus, reasons: list[Rejection]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Receipt-Id": _receipt_header()}
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        headers["Retry-After"] = _retry_after()
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    schema = "BrokenRules" if status is HTTPStatus.UNPROCESSABLE_ENTITY else "Error"
    return {
        "description": f"{status.phrase}: {'; or '.join(STATUS[reason][1] for reason in reasons)}.",
        "headers": headers,
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "examples": {reason.value: {"value": _error_example(reason)} for reason in reasons},
            }
        },
    }


def _error_example(reason: Rejection) -> dict[str, Any]:
    if reason is not Rejection.BROKEN_RULES:
        return {"status": "error", "message": STATUS[reason][1]}
    broken = {"pointer": "/IMEI", "reason": "bad_format", "found": '"12345"', "expected": "a string of 15 digits"}
    return {"status": "error", "message": "1 rule broken; see errors", "errors": [broken]}


def _schemas() -> dict[str, Any]:
    text = {"type": "string"}
    message = {"status": {"const": "error"}, "message": text}
    broken = dict.fromkeys(("pointer", "reason", "found", "expected"), text)
    destination = {"event_id": {"type": "string", "format": "uuid"}, "topic": text}
    return {
        "Event": event_schema(),
        "Success": _object({"status": {"const": "success"}, "message": {"const": "Event received successfully."}}),
        "Error": _object(message),
        "BrokenRules": _object(message | {"errors": {"type": "array", "minItems": 1, "items": _object(broken)}}),
        "Validated": _object(
            {
                "status": {"const": "success"},
                "message": text,
                "events": {"type": "array", "minItems": 1, "items": _object(destination)},
            }
        ),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _security_schemes(settings: Settings) -> dict[str, Any]:
    schemes: dict[str, Any] = {}
    if settings.ingress_tokens or settings.ingress_tokens_file:
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
    if settings.ingress_verifier != "none":
        standard = settings.ingress_verifier == "standard-webhooks"
        header = "webhook-signature" if standard else settings.ingress_signature_header
        schemes["signature"] = {
            "type": "apiKey",
            "in": "header",
            "name": header,
            "description": "Standard Webhooks (standardwebhooks.com): `v1,` and the HMAC-SHA256, in base64, of "
            "`webhook-id.webhook-timestamp.body`; send the first two in headers of these names, the time in seconds."
            if standard
            else f"HMAC-SHA256 of the body's bytes as sent, in {settings.ingress_signature_encoding}.",
        }
    return schemes


def _security(settings: Settings) -> list[dict[str, list[str]]]:
    schemes = _security_schemes(settings)
    return [{name: [] for name in schemes}] if schemes else []


def _traceparent() -> dict[str, Any]:
    return {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; stored with the event.",
        "schema": {"type": "string", "maxLength": 128},
    }


def _receipt_header() -> dict[str, Any]:
    return {
        "description": "Identifies this request in the logs of the ingress and in the stored events.",
        "schema": {"type": "string"},
    }


def _retry_after() -> dict[str, Any]:
    return {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
