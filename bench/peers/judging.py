"""The pipeline's own rules for one event, for peers that work event by event: validate, identify, enrich."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from schemas.events import RawPosition, ValidEvent, Violation
from schemas.identity import content_of, digest_of, digest_of_payload, uuid_text
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID, RAW
from schemas.validation import validate
from streams.enrichment import enrich

_FUTURE_SKEW_US = 300_000_000
encode = msgspec.json.Encoder().encode


class Identified(NamedTuple):
    """An event or a dead letter, before anybody has looked whether it is a duplicate."""

    identity: str
    content: int
    event: ValidEvent | None
    violations: list[Violation]
    received_us: int
    receipt_id: str | None


def identify(value: bytes, headers: Sequence[tuple[str, bytes]]) -> Identified:
    """What the bytes are."""
    received_us, receipt_id = 0, None
    for name, header in headers:
        if name == HEADER_ARRIVAL_US:
            received_us = int(header)
        elif name == HEADER_RECEIPT_ID:
            receipt_id = header.decode()
    found = validate(value, received_us, _FUTURE_SKEW_US)
    if isinstance(found, ValidEvent):
        return Identified(uuid_text(digest_of(found)), content_of(found), found, [], received_us, receipt_id)
    return Identified(uuid_text(digest_of_payload(value)), 1, None, found, received_us, receipt_id)


def clean(identified: Identified, partition: int, offset: int) -> bytes:
    """The enriched event as it stands on the topics."""
    assert identified.event is not None
    raw = RawPosition(RAW, partition, offset)
    return encode(enrich(identified.event, identified.identity, identified.received_us, identified.receipt_id, raw, {}))


def dead_letter(identified: Identified, value: bytes) -> bytes:
    """A dead letter with every reason and the bytes."""
    return encode(
        {
            "dead_letter_id": identified.identity,
            "reasons": identified.violations,
            "payload": value.decode("utf-8", "replace"),
        }
    )
