"""The summary that the stream stage writes of each batch, in the batch's own transaction.

What the summaries of a partition cover must be all of its raw offsets, each once: what is missing, doubled or in flight
can be computed from Kafka and ClickHouse alone.
"""

import msgspec

from schemas import times


class Count(msgspec.Struct, gc=False, frozen=True):
    """Outcomes of the raw events of one event type that arrived in one minute."""

    minute: str  # of arrival, UTC: 2026-11-24T00:10Z
    event: str  # the type as sent, at most `EVENT_MAX` characters of it; "" where there is none to read
    unique: int
    duplicate: int
    dead_lettered: int
    replayed: int = 0  # how many of these were sent by a replay, not by a sender


class BatchAccount(msgspec.Struct, gc=False, frozen=True):
    """Outcomes of the raw records of one partition from `first_offset` up to, not including, `next_offset`.

    Offsets within the range that hold no record (aborted transactions, control records) are in no count.
    """

    partition: int
    first_offset: int
    next_offset: int
    committed_at: str  # RFC 3339, UTC
    counts: list[Count]


def minute_of(received_us: int) -> str:
    """Return the minute of an arrival (µs since the epoch): `2026-11-24T00:10Z`."""
    return times.rfc3339(received_us)[:16] + "Z"


decode = msgspec.json.Decoder(BatchAccount).decode
encode = msgspec.json.Encoder().encode
