"""What becomes of the raw records of one batch: pure, no clock, no Kafka.

    records ─ read ─┬─ broken rules ──────────┐
                    └─ identity ─ window ─┬─ unique ─ enrich ─> event
                                          ├─ duplicate ─> counted, dropped
                                          └─ conflict ─┴─ payload ─ window ─┬─ unique ─> dead letter
                                                                            └─ duplicate ─> counted, dropped

So a dead letter's repeat, byte for byte, is a duplicate too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import msgspec
import numpy as np

from runtime.consumer.batch import Record
from schemas.account import Count, minute_of
from schemas.events import CleanEvent, Violation
from schemas.identity import digest_of, digest_of_payload, uuid_text
from schemas.reasons import Reason
from streams.dead_letters import dead_letter
from streams.decoding import InvalidRecord, ValidEvents, read
from streams.enrichment import Device, enrich
from streams.window import DeduplicationWindow, DedupResult, DedupResults, Rows, contents, identity_rows, payload_rows

_encoder = msgspec.json.Encoder()
_encode = _encoder.encode

#: Records read, and events enriched, at a time: what they take stays in the processor's cache, a third of the time.
_PIECE_RECORDS = 1_000

_UUID_LENGTH = 36
_UUID_DIGITS = [at for at in range(_UUID_LENGTH) if at not in {8, 13, 18, 23}]

_MINUTE_US = 60_000_000
_DEAD_LETTERED = 3

#: Record count by (arrival minute since the epoch, event type, outcome); an outcome is a `DedupResult` of 0 or 1,
#: or `_DEAD_LETTERED`.
Tally = Counter[tuple[int, str, int]]

#: A record to publish: key, value, timestamp in ms since the epoch.
Output = tuple[bytes | None, bytes, int]


@dataclass(slots=True)
class BatchResult:
    """The outcome of a batch."""

    types: list[str] = field(default_factory=list)  # of the events, one each
    events: list[Output] = field(default_factory=list)  # in order of arrival
    dead_letters: list[Output] = field(default_factory=list)
    rows: Rows = field(default_factory=lambda: payload_rows([]))  # what the window must remember once this is committed
    counts: list[Count] = field(default_factory=list)
    latest_us: int = 0  # the latest arrival


class BatchProcessor:
    """Judges the batches of one partition of the raw topic."""

    def __init__(
        self,
        topic: str,
        partition: int,
        window: DeduplicationWindow,
        devices: Mapping[str, Device],
        future_skew_us: int,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._window = window
        self._devices = devices
        self._future_skew_us = future_skew_us

    def judge(self, records: Sequence[Record]) -> BatchResult:
        """The outcome of these records, in order; the window is asked, not changed. `records` is not empty."""
        result, tally, broken = BatchResult(), Counter[tuple[int, str, int]](), list[InvalidRecord]()
        pieces: list[tuple[ValidEvents, list[bytes]]] = []
        for begin in range(0, len(records), _PIECE_RECORDS):
            valid, invalid = read(records[begin : begin + _PIECE_RECORDS], self._future_skew_us)
            pieces.append((valid, digests_of(valid)))
            broken += invalid
        result.latest_us = _latest_us([valid for valid, _ in pieces], broken)
        rows = np.concatenate([rows_of(valid, digests) for valid, digests in pieces])
        results = self._window.judge(rows)
        ends = np.cumsum([len(digests) for _, digests in pieces])
        for (valid, digests), of_piece in zip(pieces, np.split(results, ends[:-1]), strict=True):
            self._sort_valid(valid, digests, of_piece, broken, result, tally)
        result.rows = np.concatenate([rows[results == DedupResult.UNIQUE], self._sort_invalid(broken, result, tally)])
        result.counts = _counts(tally)
        return result

    def _sort_valid(
        self,
        valid: ValidEvents,
        digests: Sequence[bytes],
        results: DedupResults,
        broken: list[InvalidRecord],
        result: BatchResult,
        tally: Tally,
    ) -> None:
        """Sorts valid events by the window's result: unique ones become events, conflicts join the broken ones."""
        _count_valid(valid, results, tally)
        broken += [
            _conflicting(valid, at, digests[at]) for at in np.flatnonzero(results == DedupResult.CONFLICT).tolist()
        ]
        fresh = results == DedupResult.UNIQUE
        unique = valid.only(fresh)
        event_ids = event_ids_of(list(compress(digests, fresh.tolist())))
        clean = enrich(unique, event_ids, self._topic, self._partition, self._devices)
        result.types += [event.event for event in unique.sent]
        keys = [event.imei.encode() for event in unique.sent]
        result.events += zip(keys, _encoded(clean), (unique.received_us // 1000).tolist(), strict=True)

    def _sort_invalid(self, broken: list[InvalidRecord], result: BatchResult, tally: Tally) -> Rows:
        """Makes dead letters of those whose bytes the window has not seen."""
        if not broken:
            return payload_rows([])
        broken.sort(key=lambda invalid: invalid.record.offset)  # conflicts were found after the rest
        digests = [digest_of_payload(invalid.record.value or b"") for invalid in broken]
        rows = payload_rows(digests)
        results = self._window.judge(rows)
        for invalid, digest, known in zip(broken, digests, results.tolist(), strict=True):
            letter = dead_letter(invalid, digest, self._topic, self._partition)
            outcome = _DEAD_LETTERED if known == DedupResult.UNIQUE else int(DedupResult.DUPLICATE)
            tally[invalid.received_us // _MINUTE_US, letter.event or "", outcome] += 1
            if known == DedupResult.UNIQUE:
                result.dead_letters.append((invalid.record.key, _encode(letter), invalid.received_us // 1000))
        unique: Rows = rows[results == DedupResult.UNIQUE]
        return unique


def digests_of(valid: ValidEvents) -> list[bytes]:
    """The digest of each event's identity."""
    return [
        digest_of(event.imei, device_us, event.event, event.geofence_name)
        for event, device_us in zip(valid.sent, valid.device_us.tolist(), strict=True)
    ]


def event_ids_of(digests: Sequence[bytes]) -> list[str]:
    """What `uuid_text` makes of each of them, all at once."""
    texts = np.full((len(digests), _UUID_LENGTH), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS] = np.frombuffer(b"".join(digests).hex().encode(), np.uint8).reshape(-1, 32)
    joined = texts.tobytes().decode()
    return [joined[at : at + _UUID_LENGTH] for at in range(0, len(joined), _UUID_LENGTH)]


def rows_of(valid: ValidEvents, digests: Sequence[bytes]) -> Rows:
    """The window's row of each event."""
    imeis = [int(event.imei) for event in valid.sent]
    changes = [event.changes for event in valid.sent]
    return identity_rows(imeis, valid.device_us, digests, contents(changes, valid.latitudes, valid.longitudes))


def _latest_us(valid: Sequence[ValidEvents], broken: Sequence[InvalidRecord]) -> int:
    """The latest arrival."""
    return max(
        max((int(np.max(events.received_us, initial=0)) for events in valid), default=0),
        max((invalid.received_us for invalid in broken), default=0),
    )


def _count_valid(valid: ValidEvents, results: DedupResults, tally: Tally) -> None:
    """Counts all but conflicts, which are counted with the broken ones."""
    minutes = (valid.received_us // _MINUTE_US).tolist()
    tally.update(zip(minutes, [event.event for event in valid.sent], results.tolist(), strict=True))
    for key in [key for key in tally if key[2] == DedupResult.CONFLICT]:
        del tally[key]


def _encoded(events: Sequence[CleanEvent]) -> list[bytes]:
    """Each event as JSON: in one call, half the work, unless unknown fields may have line breaks among their tokens."""
    if any(event.extra for event in events):
        return list(map(_encode, events))
    return _encoder.encode_lines(events).split(b"\n")[:-1]


def _conflicting(valid: ValidEvents, at: int, digest: bytes) -> InvalidRecord:
    violation = Violation(
        Reason.CONFLICT,
        "",
        uuid_text(digest),
        "the Changes and Coordinates of the event that was accepted under this event_id",
    )
    return InvalidRecord(valid.records[at], int(valid.received_us[at]), valid.receipt_ids[at], [violation])


def _counts(tally: Tally) -> list[Count]:
    """The tally as rows, one a minute and event type."""
    keys: Iterable[tuple[int, str]] = sorted({(minute, event) for minute, event, _ in tally})
    return [
        Count(
            minute_of(minute * _MINUTE_US),
            event,
            tally[minute, event, DedupResult.UNIQUE],
            tally[minute, event, DedupResult.DUPLICATE],
            tally[minute, event, _DEAD_LETTERED],
        )
        for minute, event in keys
    ]
