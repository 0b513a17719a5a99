"""The dead letter, declared once: what could not become an event, with every reason, and the bytes as they came."""

from typing import Annotated

import msgspec

from schemas.event import RawPosition
from schemas.fields import INTEGER_CODEC, POSITION, TEXT_CODEC, TIME, TIME_CODEC, WORD, WORD_OR_NULL, Field

_VIOLATIONS = "Array(Tuple(code LowCardinality(String), field String, found String, expected String))"


class Violation(msgspec.Struct, gc=False, frozen=True):
    """One broken rule: reason code, the payload's field ("" for the whole), what was found, what is expected."""

    code: str
    field: str
    found: str
    expected: str


class Conflict(msgspec.Struct, gc=False, frozen=True):
    """The event that was accepted under the same identity: `event_id` is that of its row and message."""

    event_id: str


class DeadLetter(msgspec.Struct, gc=False, frozen=True):
    """What could not become an event, with every reason at once and the bytes as they came."""

    dead_letter_id: Annotated[str, Field(
        "streams: UUID of the payload's bytes, and of the attempt if it is a replay; sink: UUID of the position of the "
        "refused record",
        "UUID", schema={"format": "uuid"})]  # fmt: skip
    stage: Annotated[str, Field("which stage refused it: streams or sink", WORD, schema={"enum": ["streams", "sink"]})]
    reasons: Annotated[list[Violation], Field(
        "every broken rule: reason code, field, what was found, what is expected",
        _VIOLATIONS, TEXT_CODEC)]  # fmt: skip
    event: Annotated[str | None, Field("event type as sent, where it is a string", "Nullable(String)", TEXT_CODEC)]
    imei: Annotated[str | None, Field("IMEI as sent, where it is a string", "Nullable(String)", TEXT_CODEC)]
    received_at: Annotated[str, Field("when the ingress accepted it", TIME, TIME_CODEC, schema={"format": "date-time"})]
    receipt_id: Annotated[str | None, Field("the id in the response's X-Receipt-Id header", "Nullable(String)",
                                            TEXT_CODEC)]  # fmt: skip
    sender: Annotated[str | None, Field(
        "name of the bearer token or signature secret of the request; NULL when neither is required", WORD_OR_NULL,
        since="0.2.0")]  # fmt: skip
    payload: Annotated[str, Field("the bytes as they came, see payload_encoding", "String", TEXT_CODEC)]
    payload_encoding: Annotated[str, Field(
        "utf-8: text; base64: all bytes; base64-cut: the first MiB", WORD,
        schema={"enum": ["utf-8", "base64", "base64-cut"]})]  # fmt: skip
    conflict_with: Annotated[Conflict | None, Field(
        "the event that was accepted under the same identity", "Nullable(UUID)",
        column="conflict_with_event_id")]  # fmt: skip
    replay_of: Annotated[str | None, Field(
        "the dead letter that was replayed and failed again; NULL if this is no replay", "Nullable(UUID)",
        schema={"format": "uuid"}, since="0.2.0")]  # fmt: skip
    attempt: Annotated[int, Field("0: as the sender sent it; 1: after its first replay, and so on", "Int64",
                                  INTEGER_CODEC, schema={"minimum": 0}, since="0.2.0", missing=0)]  # fmt: skip
    raw: Annotated[RawPosition, Field("source record: topic, partition, offset", POSITION, TEXT_CODEC)]
