"""A dead letter as ClickHouse has it, with its payload as bytes."""

import base64
from typing import Any

import msgspec

from schemas.dead_letter import Violation


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `telematics.dead_letters`. Times in µs since the epoch."""

    dead_letter_id: str
    stage: str
    event: str | None
    imei: str | None
    received_us: int
    receipt_id: str | None
    sender: str | None
    payload: bytes
    payload_encoding: str
    reasons: list[Violation]
    conflict_with_event_id: str | None
    replay_of: str | None
    attempt: int
    raw_topic: str
    raw_partition: int
    raw_offset: int
    resolved_by_event_id: str | None

    @property
    def left_out_because(self) -> str | None:
        """Why it cannot be replayed; None if it can."""
        if self.stage != "streams":
            return "the event is on the topics, and ClickHouse refused its row: the sender's payload is not at fault"
        if self.payload_encoding == "base64-cut":
            return "only the first MiB of its payload is kept"
        return None


_reasons = msgspec.json.Decoder(list[Violation]).decode


def letter_of(row: dict[str, Any]) -> Letter:
    """Build the letter from a row of `store`'s query; the text of the payload becomes the sender's bytes."""
    text = str(row["payload"])
    return Letter(
        dead_letter_id=row["letter"],
        stage=row["stage"],
        event=row["event"],
        imei=row["imei"],
        received_us=row["received_us"],
        receipt_id=row["receipt_id"],
        sender=row["sender"],
        payload=text.encode() if row["payload_encoding"] == "utf-8" else base64.b64decode(text),
        payload_encoding=row["payload_encoding"],
        reasons=_reasons(row["reasons_json"]),
        conflict_with_event_id=row["conflict"],
        replay_of=row["replayed_letter"],
        attempt=row["attempt"],
        raw_topic=row["raw_topic"],
        raw_partition=row["raw_partition"],
        raw_offset=row["raw_offset"],
        resolved_by_event_id=row["resolved_by"],
    )
