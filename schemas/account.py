"""The summary that the stream stage writes of each batch, in the batch's own transaction.

What the summaries of a partition cover must be all of its raw offsets, each once: what is missing, doubled or in flight
can be computed from Kafka and ClickHouse alone.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas import times


class Count(msgspec.Struct, gc=False, frozen=True):
    """Outcomes of the raw events of one event type that arrived in one minute."""

    minute: Annotated[str, Meta(description="minute of arrival, UTC: 2026-11-24T00:10Z")]
    event: Annotated[
        str, Meta(description="the type as sent, cut at its greatest length; empty where none can be read")
    ]
    unique: Annotated[int, Meta(description="records that became an event")]
    duplicate: Annotated[int, Meta(description="records that repeat an earlier one")]
    dead_lettered: Annotated[int, Meta(description="records that became a dead letter")]
    replayed: Annotated[int, Meta(description="records of these that a replay sent, not a sender")] = 0
    erased: Annotated[int, Meta(description="records of erased devices, which became nothing")] = 0


class BatchAccount(msgspec.Struct, gc=False, frozen=True):
    """Outcomes of the raw records of one partition from `first_offset` up to, not including, `next_offset`.

    Offsets within the range that hold no record (aborted transactions, control records) are in no count.
    """

    partition: Annotated[int, Meta(description="partition of the raw topic")]
    first_offset: Annotated[int, Meta(description="the batch's first raw offset")]
    next_offset: Annotated[int, Meta(description="the raw offset after its last one")]
    committed_at: Annotated[str, Meta(description="when the batch was committed, RFC 3339, UTC")]
    counts: Annotated[list[Count], Meta(description="the batch's records by minute of arrival, type and outcome")]


def minute_of(received_us: int) -> str:
    """Return the minute of an arrival (µs since the epoch): `2026-11-24T00:10Z`."""
    return times.rfc3339(received_us)[:16] + "Z"


decode = msgspec.json.Decoder(BatchAccount).decode
encode = msgspec.json.Encoder().encode
