"""Build the dead letter of a record that cannot be an event: every reason, and the bytes as they came. Pure."""

from base64 import b64encode

import msgspec

from schemas import times
from schemas.dead_letter import Conflict, DeadLetter
from schemas.event import EVENT, IMEI, RawPosition
from schemas.identity import uuid_text
from schemas.json_text import NotJsonError, members_of, string_of
from schemas.rules import EVENT_MAX, PAYLOAD_BYTES_MAX
from streams.decoding import InvalidRecord

_CUT_BYTES = 2**20


def dead_letter(invalid: InvalidRecord, digest: bytes, topic: str) -> DeadLetter:
    """Build the dead letter; `digest` stands for the payload, `topic` is that of the record."""
    raw = invalid.record.value or b""
    payload, encoding = _payload_text(raw)
    event, imei = event_and_imei(raw)
    return DeadLetter(
        dead_letter_id=uuid_text(digest),
        stage="streams",
        reasons=invalid.violations,
        event=event,
        imei=imei,
        received_at=times.rfc3339(invalid.received_us),
        receipt_id=invalid.receipt_id,
        sender=invalid.sender,
        payload=payload,
        payload_encoding=encoding,
        conflict_with=Conflict(invalid.conflict) if invalid.conflict else None,
        replay_of=invalid.replay.dead_letter_id if invalid.replay else None,
        attempt=invalid.replay.attempt if invalid.replay else 0,
        raw=RawPosition(topic, invalid.partition, invalid.record.offset),
    )


def event_and_imei(raw: bytes) -> tuple[str | None, str | None]:
    """Return event and IMEI of a payload that broke a rule, where they are strings."""
    try:
        members = members_of(raw) if len(raw) <= PAYLOAD_BYTES_MAX else None
    except NotJsonError:
        return None, None
    texts = {member.name: member.value_text for member in members or ()}
    return _string(texts.get(EVENT.name, "")), _string(texts.get(IMEI.name, ""))


def _string(text: str) -> str | None:
    """Return a JSON string, cut, without what no column can hold; None for another value."""
    if not text.startswith('"'):
        return None
    return string_of(text)[:EVENT_MAX].replace("\0", "").encode("utf-8", "replace").decode()


def _payload_text(raw: bytes) -> tuple[str, str]:
    """Return the bytes as text if they are UTF-8 of ordinary size, else in base64 (RFC 4648), cut at 1 MiB."""
    if len(raw) <= _CUT_BYTES:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return b64encode(raw).decode(), "base64"
        if text.isprintable() or len(msgspec.json.encode(text)) <= PAYLOAD_BYTES_MAX:
            return text, "utf-8"
        return b64encode(raw).decode(), "base64"
    return b64encode(raw[:_CUT_BYTES]).decode(), "base64-cut"
