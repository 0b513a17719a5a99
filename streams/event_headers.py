"""Encode the headers of published events as `schemas.headers` declares them, by the column. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

import numpy as np

from runtime.kafka.record_format import encode_header, varint
from schemas.event import Event
from schemas.headers import EVENT_HEADERS
from schemas.topics import HEADER_TRACEPARENT

_OF_FIELDS = {header.name: attrgetter(header.field) for header in EVENT_HEADERS if header.field}


def encode_event_headers(
    types: Sequence[str], events: Sequence[Event], traceparents: Sequence[bytes | None]
) -> tuple[list[bytes], ...]:
    """Encode the headers of each event, as columns to be joined; `types` are canonical.

    The texts of a field that is a header are ASCII and of one length: `schemas.event` makes them so.
    """
    of_fields = _of_fields(events)
    if traceparents.count(None) == len(traceparents):  # as nearly always
        return [_of_type(event, len(EVENT_HEADERS)) for event in types], of_fields
    traced = [b"" if text is None else encode_header(HEADER_TRACEPARENT, text) for text in traceparents]
    counts = [len(EVENT_HEADERS) + bool(header) for header in traced]
    return list(map(_of_type, types, counts)), of_fields, traced


@lru_cache(maxsize=4_096)
def _of_type(event: str, count: int) -> bytes:
    """Encode the count of headers, and those that are the same for all events of a type."""
    texts = {
        header.name: header.of_type(event) if header.of_type else header.text
        for header in EVENT_HEADERS
        if not header.field
    }
    return varint(count) + b"".join(encode_header(name, text.encode()) for name, text in texts.items())


def _of_fields(events: Sequence[Event]) -> list[bytes]:
    """Encode the headers of fields: as a table, since every event's take the same bytes."""
    if not events:
        return []
    columns = []
    for name, text_of in _OF_FIELDS.items():
        texts = "".join(map(text_of, events)).encode()
        length = len(texts) // len(events)
        introduction = np.frombuffer(encode_header(name, bytes(length))[:-length], np.uint8)
        columns += [
            np.broadcast_to(introduction, (len(events), len(introduction))),
            np.frombuffer(texts, np.uint8).reshape(len(events), length),
        ]
    table = np.concatenate(columns, axis=1)
    joined, width = table.tobytes(), table.shape[1]
    return [joined[at : at + width] for at in range(0, len(joined), width)]
