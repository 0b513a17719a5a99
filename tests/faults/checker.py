"""Compares what was sent with what was seen, event by event: lost, doubled, invented, changed, out of order.

Pure but for `main`. It knows the sender's contract and the names of topics and fields, and shares no code with what it
judges: identity, content and times are worked out here once more, from the bytes that were sent.

What must hold of an event (IMEI, Device_Time, Event, Geofence_Name) that got a 200:
- it is once on `telematics.events.v1`, once on its type's topic, and once in ClickHouse (or, refused there, once in the
  dead letters of the sink), with a content that was sent;
- each further content sent under the same identity and acknowledged, and whatever breaks a rule, is once in the dead
  letters, on the topic and in ClickHouse;
- on every topic it comes before all events of its device that were sent after it had been acknowledged.

What got no 200 may be there, once, or not.

    python -m tests.faults.checker DIRECTORY        exit status 1 if anything is wrong
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tests.faults.history import History, Seen, Sent, Stored, load

RAW = "telematics.raw.v1"
EVENTS = "telematics.events.v1"
TYPE_PREFIX = "telematics.event."
DEAD_LETTER = "telematics.dead-letter.v1"
ACCOUNT = "telematics.account.v1"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLES = 5

#: What can be wrong with a history; each is a field of `Verdict`.
KINDS = ("lost", "doubled", "invented", "changed", "out_of_order", "unaccounted")


class Identity(NamedTuple):
    """What makes two deliveries one event."""

    imei: str
    device_us: int
    event: str
    geofence: str | None


class Content(NamedTuple):
    """What must be equal in two deliveries of one event."""

    changes: int
    latitude: float
    longitude: float


class Details(NamedTuple):
    """What the platform may write differently in two deliveries; it must be that of one of them."""

    server_us: int
    location: str


@dataclass
class Verdict:
    """What was found: counts, and examples in words."""

    events: int = 0
    attempts: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """The findings by kind, those only of which there are any."""
        return {kind: found for kind in KINDS if (found := getattr(self, kind))}

    def __str__(self) -> str:
        lines = [f"{self.attempts} attempts, {self.acknowledged} acknowledged; {self.events} events accepted; "]
        lines[0] += ", ".join(f"{kind.replace('_', ' ')} {len(getattr(self, kind))}" for kind in KINDS)
        for kind, found in self.faults.items():
            lines += [f"  {kind}: {what}" for what in found[:_EXAMPLES]]
        return "\n".join(lines)


class _Delivery(NamedTuple):
    """All attempts with one content of one event, or with the same bytes where they are no event."""

    first_sent_s: float
    acknowledged_s: float | None  # the first 200


def check(history: History) -> Verdict:
    """Everything that is wrong in a history."""
    verdict = Verdict(attempts=len(history.sent), acknowledged=sum(sent.status == 200 for sent in history.sent))
    sent = _Sent(history.sent)
    dead = _dead_letters(history.seen, history.stored)
    on_topic = [_CleanEvent.of_record(seen) for seen in history.seen if seen.topic == EVENTS]
    of_type = [_CleanEvent.of_record(seen) for seen in history.seen if seen.topic.startswith(TYPE_PREFIX)]
    rows = [_CleanEvent.of_row(stored.row) for stored in history.stored if stored.table == "events"]
    refused = [_CleanEvent.of_json(letter["payload"], "sink") for letter in dead.by_sink]

    for place, events in (("events topic", on_topic), ("type topics", of_type), ("ClickHouse", rows + refused)):
        _check_events(place, events, sent, verdict)
    for place, letters in (("dead-letter topic", dead.on_topic), ("dead letters in ClickHouse", dead.in_clickhouse)):
        _check_letters(place, letters, sent, {event.identity: event.content for event in on_topic}, verdict)
    _check_order(history.seen, sent, verdict)
    _check_types(history.seen, verdict)
    _check_agreement(on_topic + of_type + rows, verdict)
    _check_raw(history.seen, history.sent, verdict)
    _check_account(history.seen, len(on_topic), len(dead.on_topic), verdict)
    verdict.events = sum(any(d.acknowledged_s is not None for d in c.values()) for c in sent.events.values())
    return verdict


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


def read_sent(payload: str) -> tuple[Identity, Content, Details] | None:
    """What was sent, or None if the contract's rules are broken."""
    try:
        sent = orjson.loads(payload)
        latitude, longitude = map(float, sent["Coordinates"].split(","))
        device_us, server_us = _us(sent["Device_Time"]), _us(sent["Server_Time"])
        kept = (
            len(sent["IMEI"]) == 15
            and sent["IMEI"].isdigit()
            and sent["Event"].strip()
            and isinstance(sent["Changes"], int)
            and device_us <= server_us
            and abs(latitude) <= 90
            and abs(longitude) <= 180
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not kept:
        return None
    identity = Identity(sent["IMEI"], device_us, sent["Event"], sent.get("Geofence_Name"))
    return identity, Content(sent["Changes"], latitude, longitude), Details(server_us, sent["Location"])


class _CleanEvent(NamedTuple):
    """An event as the pipeline shows it."""

    identity: Identity
    content: Content
    details: Details
    event_id: str
    where: str

    @classmethod
    def of_record(cls, seen: Seen) -> "_CleanEvent":
        return cls.of_json(seen.value, f"{seen.topic}[{seen.partition}]@{seen.offset}")

    @classmethod
    def of_json(cls, text: str, where: str) -> "_CleanEvent":
        value = orjson.loads(text)
        times = {name: _us(value[name]) for name in ("device_time", "server_time")}
        return cls._of(value | times, where)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "_CleanEvent":
        return cls._of(row, "ClickHouse")

    @classmethod
    def _of(cls, value: Mapping[str, Any], where: str) -> "_CleanEvent":
        return cls(
            Identity(value["imei"], value["device_time"], value["event"], value["geofence_name"]),
            Content(value["changes"], value["latitude"], value["longitude"]),
            Details(value["server_time"], value["location"]),
            value["event_id"],
            where,
        )


def _us(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def _check_events(place: str, events: list[_CleanEvent], sent: _Sent, verdict: Verdict) -> None:
    counted = Counter(event.identity for event in events)
    verdict.doubled += [f"{identity} {count} times: {place}" for identity, count in counted.items() if count > 1]
    for event in events:
        contents = sent.events.get(event.identity)
        if contents is None:
            verdict.invented.append(f"{event.identity}: {place}, {event.where}")
        elif event.content not in contents or event.details not in sent.details[event.identity, event.content]:
            verdict.changed.append(f"{event}: {place}; sent was {list(contents)}")
    for identity, contents in sent.events.items():
        if identity not in counted and any(d.acknowledged_s is not None for d in contents.values()):
            verdict.lost.append(f"{identity}: not in {place}")


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
    verdict: Verdict,
) -> None:
    counted = Counter(letter["payload"] for letter in letters)
    verdict.doubled += [f"{payload} {count} times: {place}" for payload, count in counted.items() if count > 1]
    conflicts: set[tuple[Identity, Content]] = set()
    for payload in counted:
        read = read_sent(payload)
        if read is None:
            if payload not in sent.broken:
                verdict.invented.append(f"{payload}: {place}")
            continue
        identity, content, _ = read
        conflicts.add((identity, content))
        if payload not in sent.payloads.get((identity, content), ()):
            verdict.invented.append(f"{payload}: {place}")
        elif accepted.get(identity) == content:
            verdict.doubled.append(f"{payload}: accepted as an event, and in {place}")
    verdict.lost += [
        f"{payload}: broken, and not in {place}"
        for payload, delivery in sent.broken.items()
        if delivery.acknowledged_s is not None and payload not in counted
    ]
    verdict.lost += [
        f"{identity} with {content}: not the event that was accepted, and not in {place}"
        for identity, contents in sent.events.items()
        for content, delivery in contents.items()
        if delivery.acknowledged_s is not None
        and accepted.get(identity, content) != content
        and (identity, content) not in conflicts
    ]


def _check_order(seen: list[Seen], sent: _Sent, verdict: Verdict) -> None:
    """On a topic, an event that was acknowledged before another of its device was sent comes before that."""
    latest_sent_s: dict[tuple[str, str], float] = {}
    for record in sorted(seen, key=lambda record: (record.topic, record.partition, record.offset)):
        if record.topic != EVENTS and not record.topic.startswith(TYPE_PREFIX):
            continue
        event = _CleanEvent.of_record(record)
        delivery = sent.events.get(event.identity, {}).get(event.content)
        if delivery is None:
            continue  # reported as invented or changed
        key = (record.topic, event.identity.imei)
        latest = latest_sent_s.get(key, delivery.first_sent_s)
        if delivery.acknowledged_s is not None and delivery.acknowledged_s < latest:
            verdict.out_of_order.append(f"{event.identity} at {event.where}: comes after what was sent later")
        latest_sent_s[key] = max(latest, delivery.first_sent_s)


def _check_types(seen: list[Seen], verdict: Verdict) -> None:
    """A type's topic holds that type; one partition holds all of a device."""
    partitions: dict[str, set[int]] = defaultdict(set)
    for record in seen:
        if record.topic.startswith(TYPE_PREFIX) and record.topic != f"{TYPE_PREFIX}other.v1":
            value = orjson.loads(record.value)
            kind = "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789_-" else "-" for c in value["event"].lower())
            if record.topic != f"{TYPE_PREFIX}{kind}.v1":
                verdict.changed.append(f"{value['event']} on {record.topic}")
            partitions[value["imei"]].add(record.partition)
    verdict.out_of_order += [f"{imei} on partitions {where}" for imei, where in partitions.items() if len(where) > 1]


def _check_agreement(events: list[_CleanEvent], verdict: Verdict) -> None:
    """An event has one id and one content, everywhere, and no two events have one id."""
    first: dict[Identity, _CleanEvent] = {}
    for event in events:
        known = first.setdefault(event.identity, event)
        if event[:4] != known[:4]:
            verdict.changed.append(f"{event} is elsewhere {known}")
    ids = Counter(event.event_id for event in first.values())
    verdict.changed += [f"{count} events have the id {event_id}" for event_id, count in ids.items() if count > 1]


def _check_raw(seen: list[Seen], attempts: list[Sent], verdict: Verdict) -> None:
    """What got a 200 is on the raw topic, byte for byte, and nothing else than what was sent."""
    raw = {record.value for record in seen if record.topic == RAW}
    verdict.lost += [
        f"{payload}: acknowledged, and not on {RAW}"
        for payload in {attempt.payload for attempt in attempts if attempt.status == 200} - raw
    ]
    verdict.invented += [f"{payload}: on {RAW}" for payload in raw - {attempt.payload for attempt in attempts}]


def _check_account(seen: list[Seen], unique: int, dead_lettered: int, verdict: Verdict) -> None:
    """The summaries cover every raw offset once, and their sums are what is on the topics."""
    raw = Counter(record.partition for record in seen if record.topic == RAW)
    summaries = [orjson.loads(record.value) for record in seen if record.topic == ACCOUNT]
    sums: Counter[str] = Counter()
    of_partition: Counter[int] = Counter()
    reached: dict[int, int] = {}
    for summary in sorted(summaries, key=lambda s: (s["partition"], s["first_offset"])):
        partition = summary["partition"]
        if summary["first_offset"] < reached.get(partition, 0):
            verdict.unaccounted.append(f"raw[{partition}]@{summary['first_offset']} is in two summaries")
        reached[partition] = summary["next_offset"]
        for count in summary["counts"]:
            for outcome in ("unique", "duplicate", "dead_lettered"):
                sums[outcome] += count[outcome]
                of_partition[partition] += count[outcome]
    verdict.unaccounted += [
        f"raw[{partition}] holds {count} records, the account says {of_partition[partition]}"
        for partition, count in raw.items()
        if of_partition[partition] != count
    ]
    for outcome, found in (("unique", unique), ("dead_lettered", dead_lettered)):
        if sums[outcome] != found:
            verdict.unaccounted.append(f"the account says {sums[outcome]} {outcome}, the topic has {found}")


def main(directory: Path) -> int:
    """Check the history in a directory, and say what was found."""
    verdict = check(load(directory))
    print(verdict)  # noqa: T201 - this is a program
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
