"""The dead letter of a record that cannot be an event: every reason, and the bytes as they came. Pure."""

from base64 import b64encode

import msgspec

from schemas import times
from schemas.events import EVENT_MAX, PAYLOAD_BYTES_MAX, Conflict, DeadLetter, RawPosition
from schemas.identity import uuid_text
from schemas.reasons import Reason
from streams.decoding import InvalidRecord

_CUT_BYTES = 2**20


def dead_letter(invalid: InvalidRecord, digest: bytes, topic: str, partition: int) -> DeadLetter:
    """The dead letter; `digest` stands for the record's bytes, `topic` and `partition` are where it lies."""
    record, received_us, receipt_id, violations = invalid
    payload, encoding = _payload_text(record.value or b"")
    event, imei = _names(record.value or b"")
    conflict = next((Conflict(found.found) for found in violations if found.code == Reason.CONFLICT), None)
    return DeadLetter(
        uuid_text(digest),
        "streams",
        violations,
        event,
        imei,
        times.rfc3339(received_us),
        receipt_id,
        payload,
        encoding,
        conflict,
        RawPosition(topic, partition, record.offset),
    )


def _names(raw: bytes) -> tuple[str | None, str | None]:
    """Event and IMEI of a payload that broke a rule, where they are strings."""
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(value, dict):
        return None, None
    event, imei = value.get("Event"), value.get("IMEI")
    return (
        event[:EVENT_MAX].replace("\0", "") if isinstance(event, str) else None,
        imei[:EVENT_MAX].replace("\0", "") if isinstance(imei, str) else None,
    )


def _payload_text(raw: bytes) -> tuple[str, str]:
    """The bytes as text where they are UTF-8 of ordinary size, else in base64 (RFC 4648), cut at 1 MiB."""
    if len(raw) <= _CUT_BYTES:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return b64encode(raw).decode(), "base64"
        if text.isprintable() or len(msgspec.json.encode(text)) <= PAYLOAD_BYTES_MAX:
            return text, "utf-8"
        return b64encode(raw).decode(), "base64"
    return b64encode(raw[:_CUT_BYTES]).decode(), "base64-cut"
