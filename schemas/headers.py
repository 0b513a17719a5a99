"""The headers of records, declared once: the encoder, the contract and the documents are derived from here.

Published events carry CloudEvents 1.0 in the binary mode of its Kafka binding. Values of headers are texts in UTF-8.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas import topics
from schemas.event_types import TYPES


@dataclass(frozen=True)
class Header:
    """A header and where its text comes from; at most one of `text`, `of_type` and `field` is set."""

    name: str
    description: str
    text: str = ""  # always this
    of_type: Callable[[str], str] | None = None  # a function of the event's canonical type
    field: str = ""  # the event's field of this name
    optional: bool = False


def _schema_of_type(event: str) -> str:
    return topics.schema_id(topics.of_type(event) if event in TYPES else topics.OTHER)


#: When the `.v1` topics of events end, as an HTTP date (RFC 8594); None: no end is planned. Set it in the release that
#: begins to publish `.v2` beside them (docs/subscribers.md): every event then has the header.
SUNSET: str | None = None

_TRACEPARENT = Header(
    topics.HEADER_TRACEPARENT, "W3C Trace Context of the request, as it was sent; absent if none was", optional=True
)


def event_headers(sunset: str | None) -> tuple[Header, ...]:
    """Return the headers of every published event: what is the same for a type comes first and compresses as one."""
    ends = Header("sunset", "after this date nothing is published here: read `.v2`", text=sunset or "")
    return (*((ends,) if sunset else ()), *_EVENT_HEADERS)


_EVENT_HEADERS = (
    Header("ce_specversion", "version of CloudEvents", text="1.0"),
    Header("ce_type", "the event's type, as the name of its topic", of_type=topics.of_type),
    Header("ce_source", "what publishes the event", text="urn:eventpush"),
    Header("ce_dataschema", "`$id` of the value's JSON Schema", of_type=_schema_of_type),
    Header("content-type", "media type of the value", text="application/json"),
    Header("ce_id", "the event's `event_id`: the same after every retry and replay", field="event_id"),
    Header("ce_time", "the event's `device_time`: when it happened", field="device_time"),
    Header("ce_subject", "the event's `imei`", field="imei"),
)

EVENT_HEADERS = event_headers(SUNSET)

#: On raw records.
RAW_HEADERS = (
    Header(topics.HEADER_ARRIVAL_US, "when the ingress accepted it, in microseconds since the epoch"),
    Header(topics.HEADER_RECEIPT_ID, "the id in the response's X-Receipt-Id header"),
    Header(
        topics.HEADER_SENDER,
        "name of the bearer token or signature secret of the request; absent when neither is required",
        optional=True,
    ),
    _TRACEPARENT,
    Header(topics.HEADER_REPLAY, "id of the replay that sent the record", optional=True),
    Header(topics.HEADER_REPLAY_LETTER, "id of the dead letter that the replay sends again", optional=True),
    Header(topics.HEADER_REPLAY_ATTEMPT, "1 for the first replay of a dead letter, and so on", optional=True),
)


def headers_of(topic: str) -> tuple[Header, ...]:
    """Return the headers of a topic's records."""
    if topic == topics.RAW:
        return RAW_HEADERS
    if topic == topics.EVENTS or topics.is_of_type(topic):
        return (*EVENT_HEADERS, _TRACEPARENT)
    return ()
