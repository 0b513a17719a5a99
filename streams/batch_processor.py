"""Decide what becomes of the raw records of one batch: pure, no clock, no Kafka.

    records ─ decode ─┬─ broken rules ─────────────┐
                      └─ identity ─ window ─┬─ unique ─ enrich ─> event
                                            ├─ duplicate ─> counted, dropped
                                            └─ conflict ─┴─ payload ─ window ─┬─ unique ─> dead letter
                                                                              └─ duplicate ─> counted, dropped

So a dead letter that is sent again, byte for byte, is a duplicate too.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import Any

import msgspec
import numpy as np

from runtime.consumer.batch import Record
from runtime.kafka.record_format import NO_RECORDS, Output, Records, encode_records, joined
from schemas.account import Count, minute_of
from schemas.column_types import Bools
from schemas.dead_letter import Violation
from schemas.device_latest import state_of
from schemas.erasure import NOBODY, Erased
from schemas.event import Event
from schemas.event_types import canonical, type_of
from schemas.identity import digest_of, digest_of_attempt, digest_of_payload, uuid_text
from schemas.rules import Reason
from schemas.validation import ClockLimits
from streams.content import Content
from streams.dead_letters import dead_letter, event_and_imei
from streams.decoding import InvalidRecord, ValidEvents, decode
from streams.enrichment import Source, enrich
from streams.event_headers import encode_event_headers
from streams.latest_states import LatestStates
from streams.window import NO_ROWS, DeduplicationWindow, DedupResult, DedupResults, Rows, identity_rows, payload_rows

_encoder = msgspec.json.Encoder()

#: Records decoded, and events enriched, at a time: they stay in the processor's cache, which saves a third of the time.
_PIECE_RECORDS = 1_000

_UUID_LENGTH = 36
_UUID_DIGITS = [at for at in range(_UUID_LENGTH) if at not in {8, 13, 18, 23}]

_MINUTE_US = 60_000_000
_DEAD_LETTERED = 3
_REPLAYED = 4  # counted beside the outcome
_ERASED = 5

#: Record count by (arrival minute since the epoch, event type, outcome); an outcome is a `DedupResult` of 0 or 1,
#: `_DEAD_LETTERED`, `_REPLAYED`, or `_ERASED`.
OutcomeCounter = Counter[tuple[int, str, int]]


@dataclass(slots=True)
class BatchResult:
    """The outcome of a batch."""

    types: list[str] = field(default_factory=list)  # canonical, of the events, one each
    events: Records = NO_RECORDS  # in order of arrival
    states: list[Any] = field(default_factory=list)  # `DeviceLatest` of devices that have a newer one
    states_us: dict[str, int] = field(default_factory=dict)  # their device times, by IMEI
    dead_letters: list[Output] = field(default_factory=list)
    rows: Rows = field(default_factory=lambda: NO_ROWS)  # what the window must remember once this is committed
    counts: list[Count] = field(default_factory=list)
    latest_us: int = 0  # the latest arrival
    erased: int = 0  # records of devices on the deny list
    warnings: Counter[str] = field(default_factory=Counter)  # events by the code of a warning
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # dead letters by reason code and category


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a batch's valid events, with the digest of each one's identity."""

    events: ValidEvents
    digests: list[bytes]

    def only(self, chosen: Bools) -> "Piece":
        """Return the events for which `chosen` is true."""
        return Piece(self.events.only(chosen), list(compress(self.digests, chosen.tolist())))


class BatchProcessor:
    """The processor of the batches of one partition of the raw topic."""

    def __init__(
        self,
        source: Source,
        window: DeduplicationWindow,
        clock: ClockLimits,
        content: Content,
        states: LatestStates,
        erased: Erased = NOBODY,
    ) -> None:
        self._source = source
        self._states = states
        self._window = window
        self._clock = clock
        self._content = content
        self._erased = erased

    def process(self, records: Sequence[Record]) -> BatchResult:
        """Return the outcome of these records, in order; the window is asked, not changed. `records` is not empty."""
        result, counter, broken = BatchResult(), OutcomeCounter(), list[InvalidRecord]()
        pieces, published, latest_us = list[Piece](), list[Records](), 0
        for begin in range(0, len(records), _PIECE_RECORDS):
            events, invalid = decode(records[begin : begin + _PIECE_RECORDS], self._clock)
            latest_us = max(latest_us, _latest_us(events, invalid))
            if self._erased:
                events, invalid = self._without_erased(events, invalid, counter)
            pieces.append(Piece(events, digests_of(events)))
            broken += invalid
        result.latest_us = latest_us
        rows = np.concatenate([self._rows(piece) for piece in pieces])
        found = self._window.classify(rows)
        ends = np.cumsum([len(piece.digests) for piece in pieces])
        unique = list[Piece]()
        for piece, of_piece in zip(pieces, np.split(found, ends[:-1]), strict=True):
            _count_valid(piece.events, of_piece, counter)
            broken += _conflicts(piece, of_piece)
            unique.append(piece.only(of_piece == DedupResult.UNIQUE))
        for piece, newest in zip(unique, self._newest(unique, result), strict=True):
            published.append(self._publish(piece, newest, result))
        result.events = joined(published)
        result.rows = np.concatenate([rows[found == DedupResult.UNIQUE], self._dead_letter(broken, result, counter)])
        result.counts = _counts(counter)
        result.erased = sum(count.erased for count in result.counts)
        return result

    def _without_erased(
        self, events: ValidEvents, invalid: list[InvalidRecord], counter: OutcomeCounter
    ) -> tuple[ValidEvents, list[InvalidRecord]]:
        """Drop what is about devices on the deny list, and count it."""
        erased = np.fromiter(map(self._erased.has_device, events.imei), np.bool_, len(events.imei))
        for at in np.flatnonzero(erased).tolist():
            minute = int(events.received_us[at]) // _MINUTE_US
            counter[minute, events.event[at], _ERASED] += 1
            counter[minute, events.event[at], _REPLAYED] += bool(events.replayed[at])
        kept = []
        for record in invalid:
            raw = record.record.value or b""
            if self._erased.mentions(raw):
                minute, event = record.received_us // _MINUTE_US, event_and_imei(raw)[0] or ""
                counter[minute, event, _ERASED] += 1
                counter[minute, event, _REPLAYED] += record.replay is not None
            else:
                kept.append(record)
        return events.only(~erased), kept

    def _rows(self, piece: Piece) -> Rows:
        events = piece.events
        return identity_rows(list(map(int, events.imei)), events.device_us, piece.digests, self._content(events))

    def _newest(self, pieces: Sequence[Piece], result: BatchResult) -> list[list[int]]:
        """Return the positions in each piece of the events that are their device's new state."""
        imeis = list(chain.from_iterable(piece.events.imei for piece in pieces))
        device_us = np.concatenate([piece.events.device_us for piece in pieces])
        newer = self._states.find_newer(imeis, device_us)
        positions = np.array(sorted(newer.values()), np.int64)
        result.states_us = dict(zip(newer, device_us[list(newer.values())].tolist(), strict=True))
        ends = np.cumsum([len(piece.digests) for piece in pieces])
        of_pieces = np.split(positions, np.searchsorted(positions, ends[:-1]))
        return [(of_piece - begin).tolist() for of_piece, begin in zip(of_pieces, [0, *ends[:-1]], strict=True)]

    def _publish(self, piece: Piece, newest: Sequence[int], result: BatchResult) -> Records:
        """Enrich and encode unique events, with their headers; the `newest` become states of their devices."""
        events = piece.events
        enriched = enrich(events, event_ids_of(piece.digests), self._source)
        result.types += events.event
        result.warnings.update(chain.from_iterable(event.warnings for event in enriched))
        result.states += [state_of(enriched[at]) for at in newest]
        headers = encode_event_headers(events.event, enriched, events.traceparents)
        keys = list(map(str.encode, events.imei))
        return encode_records(keys, _encoded(enriched), events.written_ms, *headers)

    def _dead_letter(self, broken: list[InvalidRecord], result: BatchResult, counter: OutcomeCounter) -> Rows:
        """Make dead letters of the records whose bytes the window has not seen; return their rows."""
        if not broken:
            return NO_ROWS
        broken.sort(key=lambda invalid: invalid.record.offset)  # conflicts were found after the rest
        digests = list(map(_payload_digest, broken))
        rows = payload_rows(digests)
        is_unique = self._window.classify(rows) == DedupResult.UNIQUE
        for invalid, digest, unique in zip(broken, digests, is_unique.tolist(), strict=True):
            letter = dead_letter(invalid, digest, self._source.topic, self._source.partition)
            outcome = _DEAD_LETTERED if unique else int(DedupResult.DUPLICATE)
            counter[invalid.received_us // _MINUTE_US, letter.event or "", outcome] += 1
            counter[invalid.received_us // _MINUTE_US, letter.event or "", _REPLAYED] += invalid.replay is not None
            if unique:
                value = _encoder.encode(letter)
                result.dead_letters.append((invalid.record.key, value, invalid.written_ms))
                category = type_of(canonical(letter.event or "")).category
                result.reasons.update({(str(violation.code), category) for violation in letter.reasons})
        new: Rows = rows[is_unique]
        return new


def digests_of(events: ValidEvents) -> list[bytes]:
    """Return the digest of each event's identity."""
    return list(map(digest_of, events.imei, events.device_us.tolist(), events.event, events.geofence_name))


def event_ids_of(digests: Sequence[bytes]) -> list[str]:
    """Format each digest as `uuid_text` does, all at once."""
    texts = np.full((len(digests), _UUID_LENGTH), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS] = np.frombuffer(b"".join(digests).hex().encode(), np.uint8).reshape(-1, 32)
    joined = texts.tobytes().decode()
    return [joined[at : at + _UUID_LENGTH] for at in range(0, len(joined), _UUID_LENGTH)]


def _latest_us(valid: ValidEvents, broken: Sequence[InvalidRecord]) -> int:
    """Return the latest arrival."""
    return max(int(np.max(valid.received_us, initial=0)), max((invalid.received_us for invalid in broken), default=0))


def _count_valid(events: ValidEvents, found: DedupResults, counter: OutcomeCounter) -> None:
    """Count all but conflicts, which are counted with the broken records."""
    minutes = (events.received_us // _MINUTE_US).tolist()
    counter.update(zip(minutes, events.event, found.tolist(), strict=True))
    for key in [key for key in counter if key[2] == DedupResult.CONFLICT]:
        del counter[key]
    if events.replayed.any():
        for at in np.flatnonzero(events.replayed & (found != DedupResult.CONFLICT)).tolist():
            counter[minutes[at], events.event[at], _REPLAYED] += 1


def _encoded(events: Sequence[Event]) -> list[bytes]:
    """Encode each event as JSON on one line; all in one call, which is half the work."""
    return _encoder.encode_lines(events).split(b"\n")[:-1]


def _conflicts(piece: Piece, found: DedupResults) -> list[InvalidRecord]:
    """Return the events whose identity was accepted before with other content."""
    return [_conflict(piece, at) for at in np.flatnonzero(found == DedupResult.CONFLICT).tolist()]


def _payload_digest(invalid: InvalidRecord) -> bytes:
    """Return the digest that stands for the payload, or for the attempt to replay it."""
    raw, replay = invalid.record.value or b"", invalid.replay
    return digest_of_attempt(raw, replay.dead_letter_id, replay.attempt) if replay else digest_of_payload(raw)


def _conflict(piece: Piece, at: int) -> InvalidRecord:
    events, event_id = piece.events, uuid_text(piece.digests[at])
    shown = f"Changes {events.changes[at]}, Coordinates {events.latitude[at]},{events.longitude[at]}"
    violation = Violation(
        Reason.CONFLICT, "", shown, f"the content of the accepted event {event_id}: see telematics.conflicts"
    )
    return events.invalid(at, [violation], event_id)


def _counts(counter: OutcomeCounter) -> list[Count]:
    """Return the counter as rows, one for each minute and event type."""
    keys: Iterable[tuple[int, str]] = sorted({(minute, event) for minute, event, _ in counter})
    return [
        Count(
            minute_of(minute * _MINUTE_US),
            event,
            counter[minute, event, DedupResult.UNIQUE],
            counter[minute, event, DedupResult.DUPLICATE],
            counter[minute, event, _DEAD_LETTERED],
            counter[minute, event, _REPLAYED],
            counter[minute, event, _ERASED],
        )
        for minute, event in keys
    ]
