"""Decide what becomes of raw records, one batch a partition: pure, no clock, no Kafka.

    records ─ decode ─┬─ broken rules ─────────────┐
                      └─ identity ─ window ─┬─ unique ─ enrich ─> event
                                            ├─ duplicate ─> counted, dropped
                                            └─ conflict ─┴─ payload ─ window ─┬─ unique ─> dead letter
                                                                              └─ duplicate ─> counted, dropped

So a dead letter that is sent again, byte for byte, is a duplicate too.

The batches of all partitions are decoded, enriched and encoded together, by the column. A column costs as much as some
dozen events, and with many partitions a batch has few.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, groupby
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from runtime.consumer.batch import Record
from runtime.kafka.record_format import NO_RECORDS, Output, Records, encode_records, joined
from schemas.account import Count, minute_of
from schemas.column_types import Bools, Int64s
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

#: Record count by (partition, arrival minute since the epoch, event type, outcome); an outcome is a `DedupResult` of 0
#: or 1, `_DEAD_LETTERED`, `_REPLAYED`, or `_ERASED`.
OutcomeCounter = Counter[tuple[int, int, str, int]]


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What is kept of one partition of the raw topic."""

    number: int
    window: DeduplicationWindow
    states: LatestStates


class RawBatch(NamedTuple):
    """Records of one partition, in order; at least one."""

    partition: PartitionState
    records: Sequence[Record]


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
    warnings: Counter[str] = field(default_factory=Counter)  # events by the code of a warning
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # dead letters by reason code and category

    @property
    def erased(self) -> int:
        """The number of records of devices on the deny list."""
        return sum(count.erased for count in self.counts)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the valid events, with the digest of each one's identity."""

    events: ValidEvents
    digests: list[bytes]

    def only(self, chosen: Bools) -> "Piece":
        """Return the events for which `chosen` is true."""
        return Piece(self.events.only(chosen), list(compress(self.digests, chosen.tolist())))


#: By partition.
Results = Mapping[int, BatchResult]


class BatchProcessor:
    """The processor of the raw topic's batches."""

    def __init__(self, source: Source, clock: ClockLimits, content: Content, erased: Erased = NOBODY) -> None:
        self._source = source
        self._clock = clock
        self._content = content
        self._erased = erased

    def process(self, batches: Sequence[RawBatch]) -> list[BatchResult]:
        """Return the outcome of each batch, at most one a partition. The windows are asked, and nothing is changed."""
        ordered = sorted(batches, key=lambda batch: batch.partition.number)
        results = {batch.partition.number: BatchResult() for batch in ordered}
        counter = OutcomeCounter()
        pieces, broken = self._decode(ordered, results, counter)
        rows = np.concatenate([self._rows(piece) for piece in pieces])
        found = _classify(ordered, pieces, rows)
        unique = list[Piece]()
        for piece, of_piece in zip(pieces, _split(found, pieces), strict=True):
            _count_valid(piece.events, of_piece, counter)
            broken += _conflicts(piece, of_piece)
            unique.append(piece.only(of_piece == DedupResult.UNIQUE))
        self._publish(ordered, unique, rows[found == DedupResult.UNIQUE], results)
        broken.sort(key=lambda invalid: (invalid.partition, invalid.record.offset))
        of_partition = {number: list(letters) for number, letters in groupby(broken, attrgetter("partition"))}
        for batch in ordered:
            if letters := of_partition.get(batch.partition.number):
                self._dead_letter(batch.partition, letters, results[batch.partition.number], counter)
        for number, count in _counts(counter):
            results[number].counts.append(count)
        return [results[batch.partition.number] for batch in batches]

    def _decode(
        self, batches: Sequence[RawBatch], results: Results, counter: OutcomeCounter
    ) -> tuple[list[Piece], list[InvalidRecord]]:
        """Decode the records of all batches, piece by piece; note each partition's latest arrival."""
        pieces, broken = list[Piece](), list[InvalidRecord]()
        records = list(chain.from_iterable(batch.records for batch in batches))
        partitions = np.repeat(_numbers(batches), [len(batch.records) for batch in batches])
        for begin in range(0, len(records), _PIECE_RECORDS):
            end = begin + _PIECE_RECORDS
            events, invalid = decode(records[begin:end], partitions[begin:end], self._clock)
            _note_latest(events, invalid, results)
            if self._erased:
                events, invalid = self._without_erased(events, invalid, counter)
            pieces.append(Piece(events, digests_of(events)))
            broken += invalid
        return pieces, broken

    def _without_erased(
        self, events: ValidEvents, invalid: list[InvalidRecord], counter: OutcomeCounter
    ) -> tuple[ValidEvents, list[InvalidRecord]]:
        """Drop what is about devices on the deny list, and count it."""
        erased = np.fromiter(map(self._erased.has_device, events.imei), np.bool_, len(events.imei))
        for at in np.flatnonzero(erased).tolist():
            key = int(events.partitions[at]), int(events.received_us[at]) // _MINUTE_US, events.event[at]
            counter[*key, _ERASED] += 1
            counter[*key, _REPLAYED] += bool(events.replayed[at])
        kept = []
        for record in invalid:
            raw = record.record.value or b""
            if self._erased.mentions(raw):
                key = record.partition, record.received_us // _MINUTE_US, event_and_imei(raw)[0] or ""
                counter[*key, _ERASED] += 1
                counter[*key, _REPLAYED] += record.replay is not None
            else:
                kept.append(record)
        return events.only(~erased), kept

    def _rows(self, piece: Piece) -> Rows:
        events = piece.events
        return identity_rows(list(map(int, events.imei)), events.device_us, piece.digests, self._content(events))

    def _publish(self, batches: Sequence[RawBatch], pieces: Sequence[Piece], rows: Rows, results: Results) -> None:
        """Enrich and encode unique events, whose rows these are, and give each batch its own."""
        bounds = _bounds(batches, pieces)
        newer = _newer_states(batches, pieces, bounds)
        records = joined([self._encode(*piece, results) for piece in zip(pieces, newer, strict=True)])
        types = list(chain.from_iterable(piece.events.event for piece in pieces))
        for batch, (begin, end) in zip(batches, bounds, strict=True):
            result = results[batch.partition.number]
            result.types, result.events, result.rows = types[begin:end], records.between(begin, end), rows[begin:end]

    def _encode(self, piece: Piece, newer: Sequence[int], results: Results) -> Records:
        """Enrich and encode unique events, with their headers; those at `newer` become states of their devices."""
        events = piece.events
        enriched = enrich(events, event_ids_of(piece.digests), self._source)
        partitions = events.partitions.tolist()
        for partition, event in zip(partitions, enriched, strict=True):
            if event.warnings:
                results[partition].warnings.update(event.warnings)
        for at in newer:
            result = results[partitions[at]]
            result.states.append(state_of(enriched[at]))
            result.states_us[events.imei[at]] = int(events.device_us[at])
        headers = encode_event_headers(events.event, enriched, events.traceparents)
        keys = list(map(str.encode, events.imei))
        return encode_records(keys, _encoded(enriched), events.written_ms, *headers)

    def _dead_letter(
        self, partition: PartitionState, broken: list[InvalidRecord], result: BatchResult, counter: OutcomeCounter
    ) -> None:
        """Make dead letters of a partition's records whose bytes its window has not seen."""
        digests = list(map(_payload_digest, broken))
        rows = payload_rows(digests)
        is_unique = partition.window.classify(rows) == DedupResult.UNIQUE
        for invalid, digest, unique in zip(broken, digests, is_unique.tolist(), strict=True):
            letter = dead_letter(invalid, digest, self._source.topic)
            outcome = _DEAD_LETTERED if unique else int(DedupResult.DUPLICATE)
            key = invalid.partition, invalid.received_us // _MINUTE_US, letter.event or ""
            counter[*key, outcome] += 1
            counter[*key, _REPLAYED] += invalid.replay is not None
            if unique:
                value = _encoder.encode(letter)
                result.dead_letters.append((invalid.record.key, value, invalid.written_ms))
                category = type_of(canonical(letter.event or "")).category
                result.reasons.update({(str(violation.code), category) for violation in letter.reasons})
        result.rows = np.concatenate([result.rows, rows[is_unique]])


def digests_of(events: ValidEvents) -> list[bytes]:
    """Return the digest of each event's identity."""
    return list(map(digest_of, events.imei, events.device_us.tolist(), events.event, events.geofence_name))


def event_ids_of(digests: Sequence[bytes]) -> list[str]:
    """Format each digest as `uuid_text` does, all at once."""
    texts = np.full((len(digests), _UUID_LENGTH), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS] = np.frombuffer(b"".join(digests).hex().encode(), np.uint8).reshape(-1, 32)
    joined = texts.tobytes().decode()
    return [joined[at : at + _UUID_LENGTH] for at in range(0, len(joined), _UUID_LENGTH)]


def _numbers(batches: Sequence[RawBatch]) -> Int64s:
    return np.array([batch.partition.number for batch in batches], np.int64)


def _split(column: np.ndarray[Any, Any], pieces: Sequence[Piece]) -> list[Any]:
    """Split a column over all pieces into one for each."""
    return np.split(column, np.cumsum([len(piece.digests) for piece in pieces])[:-1])


def _bounds(batches: Sequence[RawBatch], pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Return where each batch's events begin and end in the pieces; both are in order of the partitions."""
    partitions, numbers = np.concatenate([piece.events.partitions for piece in pieces]), _numbers(batches)
    begins, ends = np.searchsorted(partitions, numbers), np.searchsorted(partitions, numbers, "right")
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _classify(batches: Sequence[RawBatch], pieces: Sequence[Piece], rows: Rows) -> DedupResults:
    """Ask each partition's window about its rows."""
    found = [batch.partition.window.classify(rows[begin:end])
             for batch, (begin, end) in zip(batches, _bounds(batches, pieces), strict=True)]  # fmt: skip
    return np.concatenate(found)


def _newer_states(
    batches: Sequence[RawBatch], pieces: Sequence[Piece], bounds: Sequence[tuple[int, int]]
) -> list[list[int]]:
    """Return the positions in each piece of the events that are the new state of their device."""
    imeis = list(chain.from_iterable(piece.events.imei for piece in pieces))
    device_us = np.concatenate([piece.events.device_us for piece in pieces])
    newer = list[int]()
    for batch, (begin, end) in zip(batches, bounds, strict=True):
        found = batch.partition.states.find_newer(imeis[begin:end], device_us[begin:end])
        newer += [begin + at for at in found]
    begins = np.cumsum([0, *(len(piece.digests) for piece in pieces)])
    positions = np.array(newer, np.int64)
    of_pieces = np.split(positions, np.searchsorted(positions, begins[1:-1]))
    return [(of_piece - begin).tolist() for of_piece, begin in zip(of_pieces, begins[:-1], strict=True)]


def _note_latest(valid: ValidEvents, broken: Sequence[InvalidRecord], results: Results) -> None:
    """Note the latest arrival of each partition."""
    numbers, begins = np.unique(valid.partitions, return_index=True)
    latest_us = np.maximum.reduceat(valid.received_us, begins).tolist() if len(numbers) else []
    arrived = chain(zip(numbers.tolist(), latest_us, strict=True), ((one.partition, one.received_us) for one in broken))
    for partition, received_us in arrived:
        results[partition].latest_us = max(results[partition].latest_us, received_us)


def _count_valid(events: ValidEvents, found: DedupResults, counter: OutcomeCounter) -> None:
    """Count all but conflicts, which are counted with the broken records."""
    partitions, minutes = events.partitions.tolist(), (events.received_us // _MINUTE_US).tolist()
    counter.update(zip(partitions, minutes, events.event, found.tolist(), strict=True))
    for key in [key for key in counter if key[-1] == DedupResult.CONFLICT]:
        del counter[key]
    if events.replayed.any():
        for at in np.flatnonzero(events.replayed & (found != DedupResult.CONFLICT)).tolist():
            counter[partitions[at], minutes[at], events.event[at], _REPLAYED] += 1


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


def _counts(counter: OutcomeCounter) -> Iterable[tuple[int, Count]]:
    """Return the counter as rows, one for each partition, minute and event type."""
    keys = sorted({(partition, minute, event) for partition, minute, event, _ in counter})
    for partition, minute, event in keys:
        yield (
            partition,
            Count(
                minute_of(minute * _MINUTE_US),
                event,
                counter[partition, minute, event, DedupResult.UNIQUE],
                counter[partition, minute, event, DedupResult.DUPLICATE],
                counter[partition, minute, event, _DEAD_LETTERED],
                counter[partition, minute, event, _REPLAYED],
                counter[partition, minute, event, _ERASED],
            ),
        )
