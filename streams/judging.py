"""What becomes of the raw records of one batch: pure, no clock, no Kafka.

    record ─ validate ─┬─ broken rules ───────────┐
                       └─ identity ─ window ─┬─ unique ─ enrich ─> event
                                             ├─ duplicate ─> counted, dropped
                                             └─ conflict ─┴─ payload ─ window ─┬─ unique ─> dead letter
                                                                               └─ duplicate ─> counted, dropped

So a dead letter's repeat, byte for byte, is a duplicate too.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from runtime.batches import Record
from schemas import times
from schemas.account import Count, minute_of
from schemas.events import EVENT_MAX, Conflict, DeadLetter, RawPosition, ValidEvent, Violation
from schemas.identity import content_of, digest_of, digest_of_payload, uuid_text
from schemas.reasons import Reason
from schemas.topics import HEADER_ARRIVAL_US, HEADER_RECEIPT_ID
from schemas.validation import validate
from streams.enrichment import Device, enrich
from streams.window import IdentityWindow, Rows, Verdict, identity_rows, payload_rows

#: A record of this size fits every topic (`max.message.bytes` is 4 MiB) with room for its envelope.
VALUE_BYTES_MAX = 3 * 2**20
_PAYLOAD_BYTES_MAX = 2**20

_encode = msgspec.json.Encoder().encode

_MINUTE_US = 60_000_000
_DEAD_LETTERED = 3

#: How many records of a minute of arrival (since the epoch) and an event type had an outcome (a `Verdict` of 0 or 1, or
#: `_DEAD_LETTERED`).
Tally = Counter[tuple[int, str, int]]


class Arrival(NamedTuple):
    """A raw record, its headers read."""

    record: Record
    received_us: int
    receipt_id: str | None


class Output(NamedTuple):
    """A record to publish."""

    key: bytes | None
    value: bytes
    timestamp_ms: int


@dataclass(slots=True)
class Judged:
    """The outcome of a batch."""

    events: list[tuple[str, Output]] = field(default_factory=list)  # event type, record; in order of arrival
    dead_letters: list[Output] = field(default_factory=list)
    rows: Rows = field(default_factory=lambda: payload_rows([]))  # what the window must remember once this is committed
    counts: list[Count] = field(default_factory=list)
    latest_us: int = 0  # the latest arrival


class Judge:
    """Judges the batches of one partition of the raw topic."""

    def __init__(
        self, topic: str, partition: int, window: IdentityWindow, devices: Mapping[str, Device], future_skew_us: int
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._window = window
        self._devices = devices
        self._future_skew_us = future_skew_us

    def judge(self, records: Sequence[Record]) -> Judged:
        """The outcome of these records, in order; the window is asked, not changed. `records` is not empty."""
        arrivals = [_arrival(record) for record in records]
        read = [validate(a.record.value or b"", a.received_us, self._future_skew_us) for a in arrivals]
        valid = [(a, event) for a, event in zip(arrivals, read, strict=True) if isinstance(event, ValidEvent)]
        broken = [(a, what) for a, what in zip(arrivals, read, strict=True) if not isinstance(what, ValidEvent)]

        judged = Judged(latest_us=max(a.received_us for a in arrivals))
        counter: Tally = Counter()
        unique_rows = self._valid(valid, broken, judged, counter)
        dead_rows = self._broken(broken, judged, counter)
        judged.rows = np.concatenate([unique_rows, dead_rows])
        judged.counts = _counts(counter)
        return judged

    def _valid(
        self,
        valid: list[tuple[Arrival, ValidEvent]],
        broken: list[tuple[Arrival, list[Violation]]],
        judged: Judged,
        counter: Tally,
    ) -> Rows:
        """Sorts valid events by the window's verdict: unique ones become events, conflicts join the broken ones."""
        if not valid:
            return payload_rows([])
        digests = [digest_of(event) for _, event in valid]
        rows = identity_rows(
            [int(event.imei) for _, event in valid],
            [event.device_us for _, event in valid],
            digests,
            [content_of(event) for _, event in valid],
        )
        verdicts = self._window.judge(rows)
        events = judged.events
        for (arrival, event), digest, verdict in zip(valid, digests, verdicts.tolist(), strict=True):
            if verdict == Verdict.CONFLICT:
                broken.append((arrival, [_conflict(digest)]))
                continue
            counter[arrival.received_us // _MINUTE_US, event.event, verdict] += 1
            if verdict == Verdict.UNIQUE:
                events.append((event.event, self._event(arrival, event, digest)))
        unique: Rows = rows[verdicts == Verdict.UNIQUE]
        return unique

    def _event(self, arrival: Arrival, event: ValidEvent, digest: bytes) -> Output:
        record, received_us, receipt_id = arrival
        raw = RawPosition(self._topic, self._partition, record.offset)
        clean = enrich(event, uuid_text(digest), received_us, receipt_id, raw, self._devices)
        return Output(event.imei.encode(), _encode(clean), received_us // 1000)

    def _broken(
        self,
        broken: list[tuple[Arrival, list[Violation]]],
        judged: Judged,
        counter: Tally,
    ) -> Rows:
        """Makes dead letters of those whose bytes the window has not seen."""
        if not broken:
            return payload_rows([])
        broken.sort(key=lambda item: item[0].record.offset)  # conflicts were found after the rest
        digests = [digest_of_payload(arrival.record.value or b"") for arrival, _ in broken]
        rows = payload_rows(digests)
        verdicts = self._window.judge(rows)
        for (arrival, reasons), digest, verdict in zip(broken, digests, verdicts.tolist(), strict=True):
            letter = self._dead_letter(arrival, reasons, digest)
            outcome = _DEAD_LETTERED if verdict == Verdict.UNIQUE else int(Verdict.DUPLICATE)
            counter[arrival.received_us // _MINUTE_US, letter.event or "", outcome] += 1
            if verdict == Verdict.UNIQUE:
                judged.dead_letters.append(Output(arrival.record.key, _encode(letter), arrival.received_us // 1000))
        unique: Rows = rows[verdicts == Verdict.UNIQUE]
        return unique

    def _dead_letter(self, arrival: Arrival, reasons: list[Violation], digest: bytes) -> DeadLetter:
        record, received_us, receipt_id = arrival
        payload, encoding = _payload_text(record.value or b"")
        event, imei = _names(record.value or b"")
        conflict = next((Conflict(reason.found) for reason in reasons if reason.code == Reason.CONFLICT), None)
        return DeadLetter(
            uuid_text(digest),
            "streams",
            reasons,
            event,
            imei,
            times.rfc3339(received_us),
            receipt_id,
            payload,
            encoding,
            conflict,
            RawPosition(self._topic, self._partition, record.offset),
        )


def _arrival(record: Record) -> Arrival:
    """Reads the headers; a record that came past the ingress has none, and its timestamp counts."""
    received_us, receipt_id = record.timestamp * 1000, None
    for name, value in record.headers:
        if name == HEADER_ARRIVAL_US and value.isdigit():
            received_us = int(value)
        elif name == HEADER_RECEIPT_ID:
            receipt_id = value.decode("ascii", "replace")
    return Arrival(record, received_us, receipt_id)


def _conflict(digest: bytes) -> Violation:
    return Violation(
        Reason.CONFLICT,
        "",
        uuid_text(digest),
        "the Changes and Coordinates of the event that was accepted under this event_id",
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
    if len(raw) <= _PAYLOAD_BYTES_MAX:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return b64encode(raw).decode(), "base64"
        if text.isprintable() or len(_encode(text)) <= VALUE_BYTES_MAX:
            return text, "utf-8"
        return b64encode(raw).decode(), "base64"
    return b64encode(raw[:_PAYLOAD_BYTES_MAX]).decode(), "base64-cut"


def _counts(tally: Tally) -> list[Count]:
    """The tally as rows, one a minute and event type."""
    keys: Iterable[tuple[int, str]] = sorted({(minute, event) for minute, event, _ in tally})
    return [
        Count(
            minute_of(minute * _MINUTE_US),
            event,
            tally[minute, event, Verdict.UNIQUE],
            tally[minute, event, Verdict.DUPLICATE],
            tally[minute, event, _DEAD_LETTERED],
        )
        for minute, event in keys
    ]
