"""The checker finds what it is for, in histories that were doctored by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import checker
from tests.faults.events import us
from tests.faults.history import History, Seen, Sent, Stored, save

EVENT = {
    "Event": "overspeed",
    "Changes": 50,
    "Device_Time": "2024-06-28T17:52:13.000000+0000",
    "IMEI": "350612075195931",
    "Server_Time": "2024-06-28T18:49:45.000000+0000",
    "Coordinates": "22.927968,75.533275",
    "Location": "Kharsora",
    "Geofence_Name": None,
}
IDS: dict[Any, str] = {}


def payload(second: int = 0, **changes: object) -> str:
    return json.dumps(EVENT | {"Device_Time": f"2024-06-28T17:52:{second:02}.000000+0000"} | changes)


def clean(text: str, raw_offset: int = 0) -> dict:
    sent = json.loads(text)
    latitude, longitude = map(float, sent["Coordinates"].split(","))
    identity = (sent["IMEI"], sent["Device_Time"], sent["Event"], sent["Geofence_Name"])
    return {
        "event_id": IDS.setdefault(identity, f"id-{len(IDS)}"),
        "event": sent["Event"],
        "changes": sent["Changes"],
        "imei": sent["IMEI"],
        "device_time": sent["Device_Time"],
        "server_time": sent["Server_Time"],
        "latitude": latitude,
        "longitude": longitude,
        "location": sent["Location"],
        "geofence_name": sent["Geofence_Name"],
        "raw": {"topic": checker.RAW, "partition": 0, "offset": raw_offset},
    }


def row(text: str) -> Stored:
    value = clean(text)
    times = {name: us(value[name]) for name in ("device_time", "server_time")}
    return Stored("events", value | times)


def letter(text: str) -> dict:
    return {"stage": "streams", "payload": text, "raw": {"topic": checker.RAW}}


def summary(first: int, end: int, counts: list[dict]) -> Seen:
    account = {"partition": 0, "first_offset": first, "next_offset": end, "counts": counts}
    return Seen(checker.ACCOUNT, 0, first, json.dumps(account))


def history() -> History:
    """Three events of one device in order, the second one sent twice; one conflict with the first; one broken."""
    events = [payload(0), payload(1), payload(2)]
    conflict, broken = payload(0, Changes=51), payload(0, IMEI="12")
    sent = [Sent(text, n, n + 0.5, 200) for n, text in enumerate([*events, events[1], conflict, broken])]
    seen = [Seen(checker.RAW, 0, n, attempt.payload) for n, attempt in enumerate(sent)]
    for topic in (checker.EVENTS, checker.TYPE_PREFIX + "overspeed.v1"):
        seen += [Seen(topic, 0, n, json.dumps(clean(text, n))) for n, text in enumerate(events)]
    seen += [Seen(checker.DEAD_LETTER, 0, n, json.dumps(letter(text))) for n, text in enumerate((conflict, broken))]
    counts = [{"unique": 3, "duplicate": 1, "dead_lettered": 2}]
    seen.append(summary(0, 6, counts))
    stored = [row(text) for text in events] + [Stored("dead_letters", letter(text)) for text in (conflict, broken)]
    return History(sent, seen, stored)


def passed_over(gap: range) -> History:
    """40 events in order, every third one sent again after all of them; the raw offsets in the gap were passed over."""
    events = [payload(second) for second in range(40)]
    texts = events + events[::3]
    sent = [Sent(text, n, n + 0.5, 200) for n, text in enumerate(texts)]
    seen = [Seen(checker.RAW, 0, n, text) for n, text in enumerate(texts)]
    processed: dict[str, int] = {}
    for offset, text in enumerate(texts):
        if offset not in gap:
            processed.setdefault(text, offset)
    for topic in (checker.EVENTS, checker.TYPE_PREFIX + "overspeed.v1"):
        outputs = enumerate(processed.items())
        seen += [Seen(topic, 0, n, json.dumps(clean(text, offset))) for n, (text, offset) in outputs]
    for offsets in (range(gap.start), range(gap.stop, len(texts))):
        unique = sum(offset in offsets for offset in processed.values())
        counts = [{"unique": unique, "duplicate": len(offsets) - unique, "dead_lettered": 0}]
        seen.append(summary(offsets.start, offsets.stop, counts))
    return History(sent, seen, [row(text) for text in processed])


def kinds(doctored: History) -> set[str]:
    return set(checker.check(doctored).faults)


def test_an_honest_history_has_no_faults():
    """Three events, a repeat, a conflict and a broken one, each where it belongs: nothing to say."""
    result = checker.check(history())
    assert not result.faults, str(result)
    assert (result.attempts, result.acknowledged, result.events) == (6, 6, 3)


def is_record(topic: str, offset: int) -> Callable[[object], bool]:
    return lambda item: isinstance(item, Seen) and item.topic == topic and item.offset == offset


@pytest.mark.parametrize(
    "is_gone",
    [
        is_record(checker.EVENTS, 1),
        is_record(checker.TYPE_PREFIX + "overspeed.v1", 1),
        is_record(checker.DEAD_LETTER, 0),
        is_record(checker.DEAD_LETTER, 1),
        is_record(checker.RAW, 2),
        lambda item: item == row(payload(2)),
        lambda item: item == Stored("dead_letters", letter(payload(0, IMEI="12"))),
    ],
)
def test_lost_is_found_in_every_place(is_gone: Callable[[object], bool]):
    """One missing record or row, wherever it should be, is a loss."""
    sent, seen, stored = history()
    doctored = History(sent, [s for s in seen if not is_gone(s)], [s for s in stored if not is_gone(s)])
    assert len(doctored.seen) + len(doctored.stored) == len(seen) + len(stored) - 1
    assert "lost" in kinds(doctored)


@pytest.mark.parametrize("topic", [checker.EVENTS, checker.TYPE_PREFIX + "overspeed.v1", checker.DEAD_LETTER])
def test_doubled_is_found_on_every_topic(topic: str):
    """A second record of one event or dead letter is found."""
    sent, seen, stored = history()
    again = next(record for record in seen if record.topic == topic)
    assert "doubled" in kinds(History(sent, [*seen, again._replace(offset=9)], stored))


@pytest.mark.parametrize("number", [0, 4])
def test_doubled_is_found_in_clickhouse(number: int):
    """A second row of one event or dead letter is found."""
    sent, seen, stored = history()
    assert kinds(History(sent, seen, [*stored, stored[number]])) == {"doubled"}


def test_an_event_that_is_also_a_dead_letter_is_doubled():
    """An accepted event must not be dead-lettered as well."""
    sent, seen, stored = history()
    both = Seen(checker.DEAD_LETTER, 0, 7, json.dumps(letter(payload(1))))
    assert "doubled" in kinds(History(sent, [*seen, both], stored))


def test_invented_is_found():
    """What was never sent is found on topics, in ClickHouse and in the dead letters."""
    sent, seen, stored = history()
    never = payload(9)
    assert "invented" in kinds(History(sent, [*seen, Seen(checker.EVENTS, 0, 9, json.dumps(clean(never)))], stored))
    assert kinds(History(sent, seen, [*stored, row(never)])) == {"invented"}
    assert "invented" in kinds(History(sent, seen, [*stored, Stored("dead_letters", letter("{"))]))
    assert "invented" in kinds(History(sent, [*seen, Seen(checker.RAW, 0, 9, never)], stored))


@pytest.mark.parametrize(("name", "value"), [("changes", 51), ("latitude", 1.0), ("location", "?"), ("server_time", 0)])
def test_changed_is_found(name: str, value: object):
    """Another content, place or time than was sent is found."""
    sent, seen, stored = history()
    doctored = [stored[0]._replace(row=stored[0].row | {name: value}), *stored[1:]]
    assert "changed" in kinds(History(sent, seen, doctored))


def test_an_id_that_differs_between_places_is_found():
    """One identity has one id."""
    sent, seen, stored = history()
    doctored = [stored[0]._replace(row=stored[0].row | {"event_id": "another"}), *stored[1:]]
    assert kinds(History(sent, seen, doctored)) == {"changed"}


def test_out_of_order_is_found():
    """Two events of a device that change places on a topic are found."""
    sent, seen, stored = history()
    places = {1: 2, 2: 1}
    doctored = [s._replace(offset=places.get(s.offset, s.offset)) if s.topic == checker.EVENTS else s for s in seen]
    assert kinds(History(sent, doctored, stored)) == {"out_of_order"}


def test_without_an_acknowledgement_any_order_is_right():
    """What got no 200 may come once, at any place, or not at all."""
    sent, seen, stored = history()
    unanswered = [s._replace(status=503) if s.payload == payload(2) else s for s in sent]
    gone = History(
        unanswered,
        [s for s in seen if "17:52:02" not in s.value and s.topic != checker.ACCOUNT],
        [s for s in stored if s.row.get("event_id") != clean(payload(2))["event_id"]],
    )
    assert not {"lost", "out_of_order"} & kinds(gone)
    assert not kinds(History(unanswered, seen, stored))


def test_a_batch_that_is_accounted_for_twice_or_not_at_all_is_found():
    """The summaries must cover each raw record once."""
    sent, seen, stored = history()
    account = seen[-1]
    assert kinds(History(sent, [*seen, account], stored)) == {"unaccounted"}
    assert kinds(History(sent, seen[:-1], stored)) == {"unaccounted"}


def test_records_that_the_stream_stage_passes_over_are_named():
    """Events whose only delivery was passed over are lost; those that a repeat rescued are late, and it is said why."""
    assert not kinds(passed_over(range(0)))
    result = checker.check(passed_over(range(10, 23)))
    rescued = len([offset for offset in range(10, 23) if offset % 3 == 0])
    assert result.count("lost") == 13 - rescued
    assert result.count("out_of_order") == rescued
    assert "raw[0]@10..22" in result.found["unaccounted"]
    assert "was passed over" in str(result.found["unaccounted"])
    assert not any(checker.RAW in where for places in result.found["out_of_order"].values() for where in places)


def test_a_disorder_that_the_ingress_made_is_found_on_the_raw_topic():
    """Two acknowledged events that change places on the raw topic are named there, not only on what comes after it."""
    sent, seen, stored = history()
    places = {1: 2, 2: 1}
    doctored = [s._replace(offset=places.get(s.offset, s.offset)) if s.topic == checker.RAW else s for s in seen]
    (places_of,) = checker.check(History(sent, doctored, stored)).found["out_of_order"].values()
    assert any(checker.RAW in where for where in places_of)


def test_a_device_on_two_partitions_is_out_of_order():
    """What a device sends is in order only within one partition."""
    sent, seen, stored = history()
    topic = checker.TYPE_PREFIX + "overspeed.v1"
    doctored = [s._replace(partition=1) if s.topic == topic and s.offset == 2 else s for s in seen]
    assert kinds(History(sent, doctored, stored)) == {"out_of_order"}


def test_a_summary_that_counts_wrongly_is_found():
    """A batch's outcomes must be as many as its records, and each outcome as many as are on its topic."""
    sent, seen, stored = history()
    for counts in (
        {"unique": 3, "duplicate": 0, "dead_lettered": 2},
        {"unique": 2, "duplicate": 2, "dead_lettered": 2},
    ):
        assert kinds(History(sent, [*seen[:-1], summary(0, 6, [counts])], stored)) == {"unaccounted"}


def test_the_program_says_so_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A history on disk is checked as a program; its exit status is the answer."""
    save(history(), tmp_path)
    assert checker.main(tmp_path) == 0
    sent, seen, stored = history()
    save(History(sent, seen, stored[1:]), tmp_path)
    assert checker.main(tmp_path) == 1
    assert "lost 1" in capsys.readouterr().out
    assert checker.main(tmp_path, as_json=True) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["lost"], summary["doubled"], list(summary["found"])) == (1, 0, ["lost"])
