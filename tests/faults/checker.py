"""Compares what was sent with what was seen, event by event: lost, doubled, invented, changed, out of order.

Pure but for `main`. It knows the sender's contract and the names of topics and fields, and shares no code with what it
checks: identity, content and times are worked out here once more, from the bytes that were sent.

What must hold of an event (IMEI, Device_Time, Event, Geofence_Name) that got a 200:
- it is once on `telematics.events.v1`, once on its type's topic, and once in ClickHouse (or, refused there, once in the
  dead letters of the sink), with a content that was sent;
- each further content sent under the same identity and acknowledged, and whatever breaks a rule, is once in the dead
  letters, on the topic and in ClickHouse;
- on every topic it comes before all events of its device that were sent after it had been acknowledged;
- it was made of its first delivery on the raw topic: of a later one it is only made when the first was passed over;
- the account covers each raw record once.

What got no 200 may be there, once, or not.

    python -m tests.faults.checker DIRECTORY [--json]        exit status 1 if anything is wrong
"""

import argparse
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tests.faults.check_result import CheckResult
from tests.faults.events import CleanEvent, Content, Details, Identity, read_sent
from tests.faults.history import History, Seen, Sent, Stored, load

RAW = "telematics.raw.v1"
EVENTS = "telematics.events.v1"
TYPE_PREFIX = "telematics.event."
DEAD_LETTER = "telematics.dead-letter.v1"
ACCOUNT = "telematics.account.v1"

_OUTCOMES = ("unique", "duplicate", "dead_lettered")

Position = tuple[int, int]  # partition and offset on the raw topic


class _Delivery(NamedTuple):
    """All attempts with one content of one event, or with the same bytes where they are no event."""

    first_sent_s: float
    acknowledged_s: float | None  # the first 200


def check(history: History) -> CheckResult:
    """Everything that is wrong in a history."""
    result = CheckResult(attempts=len(history.sent), acknowledged=sum(sent.status == 200 for sent in history.sent))
    sent, raw = _Sent(history.sent), _Raw(history.seen)
    dead = _dead_letters(history.seen, history.stored)
    on_topic = [CleanEvent.of_record(seen) for seen in history.seen if seen.topic == EVENTS]
    of_type = [CleanEvent.of_record(seen) for seen in history.seen if seen.topic.startswith(TYPE_PREFIX)]
    rows = [CleanEvent.of_row(stored.row) for stored in history.stored if stored.table == "events"]
    refused = [CleanEvent.of_json(letter["payload"], "sink") for letter in dead.by_sink]

    for place, events in (("events topic", on_topic), ("type topics", of_type), ("ClickHouse", rows + refused)):
        _check_events(place, events, sent, raw, result)
    for place, letters in (("dead-letter topic", dead.on_topic), ("dead letters in ClickHouse", dead.in_clickhouse)):
        _check_letters(place, letters, sent, {event.identity: event.content for event in on_topic}, result)
    _check_order(history.seen, sent, result)
    _check_types(history.seen, result)
    _check_agreement(on_topic + of_type + rows, result)
    _check_raw(raw, history.sent, result)
    _check_first(on_topic, raw, result)
    _check_account(history.seen, raw, len(on_topic), len(dead.on_topic), result)
    result.events = sum(any(d.acknowledged_s is not None for d in c.values()) for c in sent.events.values())
    return result


class _Sent:
    """The attempts, sorted: `events` by identity and content, `broken` by their bytes."""

    def __init__(self, attempts: Iterable[Sent]) -> None:
        self.events: dict[Identity, dict[Content, _Delivery]] = defaultdict(dict)
        self.broken: dict[str, _Delivery] = {}
        self.details: dict[tuple[Identity, Content], set[Details]] = defaultdict(set)
        self.payloads: dict[tuple[Identity, Content], set[str]] = defaultdict(set)
        for attempt in attempts:
            read = read_sent(attempt.payload)
            if read is None:
                _merge(self.broken, attempt.payload, attempt)
            else:
                identity, content, details = read
                _merge(self.events[identity], content, attempt)
                self.details[identity, content].add(details)
                self.payloads[identity, content].add(attempt.payload)


def _merge(deliveries: dict[Any, _Delivery], key: Hashable, attempt: Sent) -> None:
    known = deliveries.get(key, _Delivery(attempt.sent_s, None))
    acknowledged = known.acknowledged_s
    if attempt.status == 200 and attempt.answered_s is not None:
        acknowledged = min(attempt.answered_s, acknowledged if acknowledged is not None else attempt.answered_s)
    deliveries[key] = _Delivery(min(known.first_sent_s, attempt.sent_s), acknowledged)


class _Raw:
    """The raw topic: which offsets there are, which bytes, and where each event's first delivery is."""

    def __init__(self, seen: Iterable[Seen]) -> None:
        self.payloads: set[str] = set()
        self.offsets: dict[int, list[int]] = defaultdict(list)
        self.at: dict[Identity, list[Position]] = defaultdict(list)
        for record in sorted((s for s in seen if s.topic == RAW), key=lambda s: (s.partition, s.offset)):
            self.payloads.add(record.value)
            self.offsets[record.partition].append(record.offset)
            read = read_sent(record.value)
            if read is not None:
                self.at[read[0]].append((record.partition, record.offset))

    def where(self, identity: Identity) -> str:
        """The deliveries of an event, for whoever looks for it."""
        return " ".join(map(_named, self.at[identity])) if identity in self.at else "nowhere on the raw topic"


def _named(position: Position) -> str:
    return f"raw[{position[0]}]@{position[1]}"


def _check_events(place: str, events: list[CleanEvent], sent: _Sent, raw: _Raw, result: CheckResult) -> None:
    counted = Counter(event.identity for event in events)
    for identity, count in counted.items():
        if count > 1:
            result.note("doubled", identity, f"{count} times: {place}, from {raw.where(identity)}")
    for event in events:
        contents = sent.events.get(event.identity)
        if contents is None:
            result.note("invented", event.identity, f"{place}, {event.where}")
        elif event.content not in contents or event.details not in sent.details[event.identity, event.content]:
            result.note("changed", event, f"{place}; sent was {list(contents)}")
    for identity, contents in sent.events.items():
        if identity not in counted and any(d.acknowledged_s is not None for d in contents.values()):
            result.note("lost", identity, f"not in {place}, though at {raw.where(identity)}")


class _DeadLetters(NamedTuple):
    on_topic: list[dict[str, Any]]  # of the stream stage
    in_clickhouse: list[dict[str, Any]]
    by_sink: list[dict[str, Any]]  # events that ClickHouse refused


def _dead_letters(seen: list[Seen], stored: list[Stored]) -> _DeadLetters:
    letters = [orjson.loads(record.value) for record in seen if record.topic == DEAD_LETTER]
    rows = [row.row for row in stored if row.table == "dead_letters"]
    return _DeadLetters(
        [letter for letter in letters if letter["stage"] == "streams"],
        [row for row in rows if row["stage"] == "streams"],
        [letter for letter in letters if letter["stage"] == "sink" and letter["raw"]["topic"] == EVENTS],
    )


def _check_letters(
    place: str,
    letters: list[dict[str, Any]],
    sent: _Sent,
    accepted: Mapping[Identity, Content],
    result: CheckResult,
) -> None:
    counted = Counter(letter["payload"] for letter in letters)
    for payload, count in counted.items():
        if count > 1:
            result.note("doubled", payload, f"{count} times: {place}")
    conflicts: set[tuple[Identity, Content]] = set()
    for payload in counted:
        read = read_sent(payload)
        if read is None:
            if payload not in sent.broken:
                result.note("invented", payload, place)
            continue
        identity, content, _ = read
        conflicts.add((identity, content))
        if payload not in sent.payloads.get((identity, content), ()):
            result.note("invented", payload, place)
        elif accepted.get(identity) == content:
            result.note("doubled", payload, f"accepted as an event, and in {place}")
    for payload, delivery in sent.broken.items():
        if delivery.acknowledged_s is not None and payload not in counted:
            result.note("lost", payload, f"broken, and not in {place}")
    for identity, contents in sent.events.items():
        for content, delivery in contents.items():
            conflicting = accepted.get(identity, content) != content and (identity, content) not in conflicts
            if conflicting and delivery.acknowledged_s is not None:
                result.note("lost", f"{identity} with {content}", f"not what was accepted, and not in {place}")


def _check_order(seen: list[Seen], sent: _Sent, result: CheckResult) -> None:
    """On a topic, an event that was acknowledged before another of its device was sent comes before that.

    On the raw topic only an event's first delivery counts, so a finding there is the ingress's, and one that is only on
    the topics after it the stream stage's.
    """
    latest_sent_s: dict[tuple[str, str], float] = {}
    delivered: set[tuple[Identity, Content]] = set()
    for record in sorted(seen, key=lambda record: (record.topic, record.partition, record.offset)):
        shown = _shown(record, delivered)
        delivery = sent.events.get(shown[0], {}).get(shown[1]) if shown else None
        if shown is None or delivery is None:
            continue  # of no event, or reported as invented or changed
        key = (record.topic, shown[0].imei)
        latest = latest_sent_s.get(key, delivery.first_sent_s)
        if delivery.acknowledged_s is not None and delivery.acknowledged_s < latest:
            where = f"{record.topic}[{record.partition}]@{record.offset}"
            result.note("out_of_order", shown[0], f"comes after what was sent later: {where}")
        latest_sent_s[key] = max(latest, delivery.first_sent_s)


def _shown(record: Seen, delivered: set[tuple[Identity, Content]]) -> tuple[Identity, Content] | None:
    """The event that a record is; None for a repeat on the raw topic and for topics without order."""
    if record.topic == EVENTS or record.topic.startswith(TYPE_PREFIX):
        event = CleanEvent.of_record(record)
        return event.identity, event.content
    read = read_sent(record.value) if record.topic == RAW else None
    if read is None or read[:2] in delivered:
        return None
    delivered.add(read[:2])
    return read[:2]


def _check_types(seen: list[Seen], result: CheckResult) -> None:
    """A type's topic holds that type; one partition holds all of a device."""
    partitions: dict[str, set[int]] = defaultdict(set)
    for record in seen:
        if record.topic.startswith(TYPE_PREFIX) and record.topic != f"{TYPE_PREFIX}other.v1":
            value = orjson.loads(record.value)
            kind = "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789_-" else "-" for c in value["event"].lower())
            if record.topic != f"{TYPE_PREFIX}{kind}.v1":
                result.note("changed", value["event"], f"on {record.topic}")
            partitions[value["imei"]].add(record.partition)
    for imei, where in partitions.items():
        if len(where) > 1:
            result.note("out_of_order", imei, f"on partitions {sorted(where)}")


def _check_agreement(events: list[CleanEvent], result: CheckResult) -> None:
    """An event has one id and one content, everywhere, and no two events have one id."""
    first: dict[Identity, CleanEvent] = {}
    for event in events:
        known = first.setdefault(event.identity, event)
        if event[:4] != known[:4]:
            result.note("changed", event, f"is elsewhere {known}")
    for event_id, count in Counter(event.event_id for event in first.values()).items():
        if count > 1:
            result.note("changed", event_id, f"is the id of {count} events")


def _check_raw(raw: _Raw, attempts: list[Sent], result: CheckResult) -> None:
    """What got a 200 is on the raw topic, byte for byte, and nothing else than what was sent."""
    for payload in {attempt.payload for attempt in attempts if attempt.status == 200} - raw.payloads:
        result.note("lost", payload, f"acknowledged, and not on {RAW}")
    for payload in raw.payloads - {attempt.payload for attempt in attempts}:
        result.note("invented", payload, f"on {RAW}")


def _check_first(events: Iterable[CleanEvent], raw: _Raw, result: CheckResult) -> None:
    """Each event was made of its first delivery: if not, that one was passed over, and a repeat came to the rescue."""
    for event in events:
        positions = raw.at.get(event.identity)
        if positions and event.raw is not None and event.raw > positions[0]:
            where = f"made of {_named(event.raw)}; its first delivery, {_named(positions[0])}, was passed over"
            result.note("unaccounted", event.identity, where)


def _check_account(seen: list[Seen], raw: _Raw, unique: int, dead_lettered: int, result: CheckResult) -> None:
    """The summaries cover every raw offset once, and their sums are what is on the topics."""
    summaries = [orjson.loads(record.value) for record in seen if record.topic == ACCOUNT]
    sums: Counter[str] = Counter()
    covered: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for summary in sorted(summaries, key=lambda s: (s["partition"], s["first_offset"])):
        partition, first, end = summary["partition"], summary["first_offset"], summary["next_offset"]
        if covered[partition] and first < covered[partition][-1][1]:
            result.note("unaccounted", f"raw[{partition}]@{first}", "is in two summaries")
        covered[partition].append((first, end))
        counted = sum(count[outcome] for count in summary["counts"] for outcome in _OUTCOMES)
        records = len(_slice(raw.offsets[partition], first, end))
        if counted != records:
            where = f"holds {records} records, the account says {counted}"
            result.note("unaccounted", f"raw[{partition}]@{first}..{end - 1}", where)
        for count in summary["counts"]:
            sums.update({outcome: count[outcome] for outcome in _OUTCOMES})
    for partition, offsets in raw.offsets.items():
        for first, last in _uncovered(offsets, covered[partition]):
            result.note("unaccounted", f"raw[{partition}]@{first}..{last}", "is in no summary")
    for outcome, found in (("unique", unique), ("dead_lettered", dead_lettered)):
        if sums[outcome] != found:
            result.note("unaccounted", outcome, f"the account says {sums[outcome]}, the topic has {found}")


def _slice(offsets: list[int], first: int, end: int) -> list[int]:
    """The offsets from `first` to before `end` of an ascending list."""
    return offsets[bisect_left(offsets, first) : bisect_left(offsets, end)]


def _uncovered(offsets: list[int], ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of offsets, first and last, that lie in none of the ranges; both ascending."""
    runs: list[tuple[int, int]] = []
    position = 0
    for first, end in [*ranges, (offsets[-1] + 1, offsets[-1] + 1)]:
        missing = _slice(offsets, position, first)
        if missing:
            runs.append((missing[0], missing[-1]))
        position = max(position, end)
    return runs


def main(directory: Path, *, as_json: bool = False) -> int:
    """Check the history in a directory, and say what was found."""
    result = check(load(directory))
    print(orjson.dumps(result.as_dict()).decode() if as_json else result)  # noqa: T201 - this is a program
    return 1 if result.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="a directory with sent.jsonl, seen.jsonl and stored.jsonl")
    parser.add_argument("--json", action="store_true", help="print counts and findings as JSON")
    given = parser.parse_args()
    sys.exit(main(given.directory, as_json=given.json))
