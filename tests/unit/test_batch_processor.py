"""What becomes of a batch."""

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.peers import event_logic
from eventpush.simulation.fleet import generate
from runtime.consumer.batch import Record
from schemas import times
from schemas.dead_letter import DeadLetter
from schemas.device import Device
from schemas.event import Event
from schemas.identity import uuid_text
from schemas.replay import Replay
from schemas.validation import ClockLimits
from streams.batch_processor import BatchProcessor, BatchResult, PartitionState, RawBatch, event_ids_of
from streams.content import content_of, default_content_fields
from streams.enrichment import Source
from streams.latest_states import LatestStates
from streams.memory_segment import MemorySegment
from streams.window import DeduplicationWindow
from tests.unit.published_records import read

EXAMPLES = sorted(Path("schemas/examples").glob("*.json"))
SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
ARRIVAL_US = times.parse("2024-06-28T18:49:46.250000+0000")
CLOCK = ClockLimits.of_seconds(300, 86_400)


def record(offset: int, value: bytes | dict[str, Any] | None, **headers: str) -> Record:
    """A raw record as the consumer hands it on."""
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    named = {"arrival_us": str(ARRIVAL_US), "receipt_id": f"r-{offset}", **headers}
    made: Record = cast(
        "Any",
        SimpleNamespace(
            offset=offset,
            timestamp=ARRIVAL_US // 1000,
            key=b"350612075195931",
            value=raw,
            headers=[(name, text.encode()) for name, text in named.items()],
        ),
    )  # it has what a Record has
    return made


def process(
    *records: Record,
    devices: dict[str, Device] | None = None,
    window: DeduplicationWindow | None = None,
    content: list[str] | None = None,
    states: LatestStates | None = None,
) -> BatchResult:
    """The outcome of records on partition 3."""
    window = window or DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    partition = PartitionState(3, window, states or LatestStates())
    source = Source("telematics.raw.v1", devices or {}, CLOCK.skew_us)
    processor = BatchProcessor(source, CLOCK, content_of(content or default_content_fields()))
    (result,) = processor.process([RawBatch(partition, records)])
    return result


def events(result: BatchResult) -> list[Event]:
    """The published events, decoded as a subscriber would."""
    return [msgspec.json.decode(record.value or b"", type=Event) for record in read(result.events)]


def letters(result: BatchResult) -> list[DeadLetter]:
    """The dead letters, decoded."""
    return [msgspec.json.decode(value, type=DeadLetter) for _, value, _ in result.dead_letters]


def test_the_sample_is_enriched() -> None:
    """Every added value of the API document's sample is the known one; H3 cells are those of ClickHouse's geoToH3."""
    device = Device("MH 12 AB 1234", "North", "A. Rao")
    (event,) = events(process(record(7, SAMPLE), devices={"350612075195931": device}))
    assert event.event_id == "b42ed2be-4d46-2cd9-e3bd-dfac9dcd1633"
    assert event.received_at == "2024-06-28T18:49:46.250000Z"
    assert (event.time_zone, event.device_time_local) == ("Asia/Kolkata", "2024-06-28T23:22:13.000000+05:30")
    assert (event.h3_r7, event.h3_r9) == (f"{609069382156419071:x}", f"{618076581399625727:x}")
    assert (event.imei_valid, event.tac) == (True, "35061207")
    assert (event.device_delay_ms, event.platform_delay_ms) == (3_452_000, 1_250)
    assert (event.category, event.severity) == ("driving", "warning")
    assert (event.vehicle, event.fleet, event.driver) == ("MH 12 AB 1234", "North", "A. Rao")
    assert (event.receipt_id, event.raw.topic, event.raw.partition, event.raw.offset) == (
        "r-7",
        "telematics.raw.v1",
        3,
        7,
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_becomes_an_event(path: Path) -> None:
    """All types of the contract pass, and so do unknown types and fields."""
    (event,) = events(process(record(0, path.read_bytes())))
    sent = json.loads(path.read_bytes())
    assert (event.event_as_sent or event.event, event.changes) == (sent["Event"], sent["Changes"])
    assert event.geofence_name == sent["Geofence_Name"]
    assert json.loads(bytes(event.extra)) == {name: value for name, value in sent.items() if name not in SAMPLE}


def test_the_sender_is_on_events_and_dead_letters() -> None:
    """The name that the ingress wrote into the raw record's header; null while no credentials are required."""
    broken = {**SAMPLE, "IMEI": "12"}
    for name in ("fleet-a", None):
        headers = {"sender": name} if name else {}
        result = process(record(0, SAMPLE, **headers), record(1, broken, **headers))
        assert [event.sender for event in events(result)] == [letter.sender for letter in letters(result)] == [name]


def test_a_retry_is_dropped_and_counted() -> None:
    """Same identity and content is one event, though the platform's Server_Time and Location differ."""
    retry = {**SAMPLE, "Server_Time": "2024-06-28T18:49:46.000000+0000", "Location": "elsewhere"}
    spelled = {**SAMPLE, "Device_Time": "2024-06-28T17:52:13Z"}
    result = process(record(0, SAMPLE), record(1, retry), record(2, spelled))
    assert len(result.types) == 1
    assert not result.dead_letters
    (count,) = result.counts
    assert (count.minute, count.event, count.unique, count.duplicate) == ("2024-06-28T18:49Z", "overspeed", 1, 2)


@pytest.mark.parametrize("changed", [{"Event": "sos"}, {"Geofence_Name": "Depot"}, {"IMEI": "1" * 15}])
def test_another_identity_is_another_event(changed: dict[str, Any]) -> None:
    """Two events of one device in the same instant are both kept."""
    result = process(record(0, SAMPLE), record(1, {**SAMPLE, **changed}))
    assert len({event.event_id for event in events(result)}) == 2


@pytest.mark.parametrize("name", ["", "  ", ...])
def test_no_geofence_is_one_identity_however_it_is_said(name: Any) -> None:
    """Null, absent, empty and blank are retries of each other."""
    retry = {k: v for k, v in {**SAMPLE, "Geofence_Name": name}.items() if v is not ...}
    result = process(record(0, SAMPLE), record(1, retry))
    assert (len(result.types), len(result.dead_letters)) == (1, 0)


@pytest.mark.parametrize(
    ("sent", "event", "category"),
    [
        ("Geofence Entry", "geofence_enter", "geofence"),
        ("Fuel Drain", "fuel_drain", "fuel"),
        ("Power Cut", "power_cut", "security"),
        ("geofence", "geofence", "geofence"),
        ("SOS ", "sos", "emergency"),
        ("sos\u200b", "sos", "emergency"),
        ("ＳＯＳ", "sos", "emergency"),
    ],
)
def test_a_type_in_the_contracts_own_wording_reaches_its_subscribers(sent: str, event: str, category: str) -> None:
    """The normal form decides identity, category and column; what was sent is kept where it differs."""
    result = process(record(0, {**SAMPLE, "Event": sent}), record(1, {**SAMPLE, "Event": event}))
    (published,) = events(result)
    assert result.types == [published.event] == [event]
    assert published.category == category
    assert published.event_as_sent == (None if sent == event else sent)
    assert ("type_normalised" in published.warnings) == (sent != event)


@pytest.mark.parametrize(
    ("changed", "codes"),
    [
        ({}, []),
        ({"Coordinates": "0,-0.0"}, ["position_zero"]),
        ({"Device_Time": "2009-12-31T23:59:59.999999+0000"}, ["device_time_before_2010"]),
        ({"Server_Time": "2024-06-28T18:54:46.250001+0000"}, ["clock_ahead"]),
        ({"Server_Time": "2024-06-28T18:54:46.250000+0000"}, []),
        ({"IMEI": "0" * 15}, ["imei_zero"]),
        ({"IMEI": "350612075195932"}, ["imei_check_digit"]),
        ({"Location": None}, ["location_missing"]),
        ({"Event": "Overspeed"}, ["type_normalised"]),
        ({"Device_Time": "2024-06-28T17:52:13.0000001Z"}, ["time_cut"]),
        (
            {"Coordinates": "0,0", "Location": None},
            ["position_zero", "location_missing"],
        ),
    ],
)
def test_what_is_suspicious_passes_with_a_warning(changed: dict[str, Any], codes: list[str]) -> None:
    """Nothing valid is refused for it; the codes are on the event and counted."""
    result = process(record(0, {**SAMPLE, **changed}))
    (event,) = events(result)
    assert event.warnings == codes
    assert result.warnings == dict.fromkeys(codes, 1)


@pytest.mark.parametrize("tail", [b', "Changes": 50}', b', "x": 1, "x": 2}', b',"Changes":50}'])
def test_a_name_that_is_there_twice_is_a_warning(tail: bytes) -> None:
    """A known name or an unknown one, with and without blanks."""
    (event,) = events(process(record(0, json.dumps(SAMPLE).encode()[:-1] + tail)))
    assert event.warnings == ["duplicate_keys"]


@pytest.mark.parametrize("unknown", [0, 1, 2, 5])
@pytest.mark.parametrize("value", ["1" * digits for digits in range(1, 30)])
def test_a_second_name_of_any_length_is_seen(unknown: int, value: str) -> None:
    """However long the repeated member is: its length is not taken for that of blanks."""
    members = "".join(f',"x{number}":{number}' for number in range(unknown))
    compact = json.dumps(SAMPLE, separators=(",", ":"))[:-1]
    raw = f'{compact}{members},"y":{value},"y":2}}'.encode()
    (event,) = events(process(record(0, raw)))
    assert event.warnings == ["duplicate_keys"]


def test_an_escaped_quote_is_no_second_name() -> None:
    """Names are distinguished from quotes within texts."""
    (event,) = events(process(record(0, {**SAMPLE, "Location": 'the "Depot", "Changes": 50'})))
    assert event.warnings == []


def test_a_second_name_is_seen_beside_escapes() -> None:
    """Quotes behind escaped backslashes, and escaped quotes of other events, do not make up for those of the name."""
    ends_in_backslash = {**SAMPLE, "Location": "C:\\", "Geofence_Name": "D:\\"}
    twice = json.dumps(ends_in_backslash).encode()[:-1] + b',"Changes":50}'
    quoted = {**SAMPLE, "IMEI": "350612075195949", "Location": 'The "Depot"'}
    found = events(process(record(0, twice), record(1, quoted)))
    assert [event.warnings for event in found] == [["duplicate_keys"], []]


@pytest.mark.parametrize(
    ("field", "other"),
    [("Server_Time", "2024-06-28T18:49:45.500000+0000"), ("Location", "elsewhere"), ("sequence", 2)],
)
def test_content_fields_make_a_difference_a_conflict(field: str, other: Any) -> None:
    """By default a retry; with EVENTPUSH_CONTENT_FIELDS naming the field, a conflict. Equal values stay a retry."""
    first, second = {**SAMPLE, "sequence": 1}, {**SAMPLE, "sequence": 1, field: other}
    assert process(record(0, first), record(1, second)).dead_letters == []
    content = ["Changes", "Coordinates", field]
    (letter,) = letters(process(record(0, first), record(1, second), record(2, first), content=content))
    assert [reason.code for reason in letter.reasons] == ["conflict"]


def test_published_values_are_one_line_each() -> None:
    """Also with unknown fields that were sent over several lines."""
    raw = json.dumps(SAMPLE).encode()[:-1] + b',\n "Card": {"id":\n [1,\r\n 2]}}'
    (value,) = [published.value or b"" for published in read(process(record(0, raw)).events)]
    assert b"\n" not in value
    assert b"\r" not in value
    assert json.loads(value)["extra"] == {"Card": {"id": [1, 2]}}


def test_dead_letters_are_counted_by_reason_and_category() -> None:
    """So that a dead-lettered SOS can page the person on call."""
    unknown, emergency = {**SAMPLE, "Event": "S.O.S", "IMEI": "1"}, {**SAMPLE, "Event": "SOS", "IMEI": "2"}
    result = process(record(0, unknown), record(1, emergency))
    assert result.reasons == {("bad_format", "other"): 1, ("bad_format", "emergency"): 1}


@pytest.mark.parametrize("changed", [{"Changes": 51}, {"Coordinates": "22.927969,75.533275"}])
def test_a_conflict_is_a_dead_letter_that_points_to_the_event(changed: dict[str, Any]) -> None:
    """Same identity, other content: never dropped; both can be seen."""
    result = process(record(0, SAMPLE), record(1, {**SAMPLE, **changed}))
    (event,), (letter,) = events(result), letters(result)
    assert [reason.code for reason in letter.reasons] == ["conflict"]
    assert letter.conflict_with is not None
    assert letter.conflict_with.event_id == event.event_id
    assert json.loads(letter.payload)["IMEI"] == SAMPLE["IMEI"]


def test_a_dead_letter_has_every_reason_and_the_bytes() -> None:
    """What breaks rules keeps its bytes, its position and all its reasons."""
    (letter,) = letters(process(record(9, {**SAMPLE, "IMEI": "12", "Coordinates": "95,75"})))
    assert [(reason.code, reason.field) for reason in letter.reasons] == [
        ("bad_format", "IMEI"),
        ("out_of_range", "Coordinates"),
    ]
    assert (letter.event, letter.imei, letter.raw.offset, letter.receipt_id) == ("overspeed", "12", 9, "r-9")
    assert json.loads(letter.payload) == {**SAMPLE, "IMEI": "12", "Coordinates": "95,75"}


def test_bytes_that_are_no_text_are_kept_in_base64() -> None:
    """Nothing that was acknowledged is lost because it is unreadable; a tombstone is kept too."""
    binary, empty = letters(process(record(0, b"\xff\xfe"), record(1, None)))
    assert (binary.payload, binary.payload_encoding) == ("//4=", "base64")
    assert (empty.payload, empty.payload_encoding) == ("", "utf-8")


def test_a_dead_letters_repeat_is_a_duplicate() -> None:
    """The same broken bytes again are dropped and counted: a retry is once in the dead letters."""
    broken = {**SAMPLE, "IMEI": "12"}
    conflict = {**SAMPLE, "Changes": 51}
    result = process(*(record(n, v) for n, v in enumerate([SAMPLE, broken, conflict, conflict, broken])))
    assert [letter.raw.offset for letter in letters(result)] == [1, 2]
    assert sum(count.duplicate for count in result.counts) == 2


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_event_ids_all_at_once_are_those_one_by_one(digests: list[bytes]) -> None:
    """The notation is that of a UUID."""
    assert event_ids_of(digests) == [str(UUID(bytes=digest)) for digest in digests] == list(map(uuid_text, digests))


payloads = st.one_of(
    st.binary(max_size=50),
    st.builds(
        lambda imei, changes, event: json.dumps({**SAMPLE, "IMEI": imei, "Changes": changes, "Event": event}).encode(),
        st.sampled_from(["350612075195931", "490154203237518", "12"]),
        st.integers(0, 2),
        st.sampled_from(["overspeed", "sos", ""]),
    ),
)


@settings(max_examples=60)
@given(st.lists(payloads, min_size=1, max_size=40), st.integers(1, 10))
def test_however_batches_are_cut_the_outcome_is_the_same(values: list[bytes], size: int) -> None:
    """A replay with other batch boundaries publishes the same bytes in the same order: nothing depends on the cut."""
    records = [record(n, value) for n, value in enumerate(values)]
    whole = process(*records)
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    pieces = []
    for begin in range(0, len(records), size):
        piece = process(*records[begin : begin + size], window=window)
        window.add(piece.rows, piece.latest_us)
        pieces.append(piece)
    assert [body for piece in pieces for body in piece.events.bodies] == list(whole.events.bodies)
    assert [at for piece in pieces for at in piece.events.timestamps_ms] == list(whole.events.timestamps_ms)
    assert [output for piece in pieces for output in piece.dead_letters] == whole.dead_letters
    assert sum(c.unique + c.duplicate + c.dead_lettered for p in pieces for c in p.counts) == len(values)


def test_after_a_commit_the_same_batch_is_all_duplicates() -> None:
    """Processed twice, the result is that of once."""
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    records = [record(n, path.read_bytes()) for n, path in enumerate(EXAMPLES)]
    first = process(*records, window=window)
    window.add(first.rows, first.latest_us)
    again = process(*records, window=window)
    assert not again.events.bodies
    assert not again.dead_letters


REPLAY = Replay("11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222", 2)


def replayed(offset: int, value: bytes | dict[str, Any], replay: Replay = REPLAY) -> Record:
    """A raw record that a replay wrote a day after the arrival."""
    headers = {name: text.decode() for name, text in replay.headers()}
    sent = record(offset, value, **headers)
    sent.timestamp = ARRIVAL_US // 1000 + 86_400_000
    return sent


def test_a_replay_keeps_its_arrival_and_is_written_now() -> None:
    """First arrival and receipt are the event's; Kafka's timestamp is the replay's, so retention begins with it."""
    result = process(replayed(7, SAMPLE))
    (event,) = events(result)
    assert (event.received_at, event.receipt_id) == (times.rfc3339(ARRIVAL_US), "r-7")
    assert result.events.timestamps_ms.tolist() == [ARRIVAL_US // 1000 + 86_400_000]


def test_replays_are_counted_apart() -> None:
    """Beside their outcome: event, duplicate or dead letter."""
    broken = SAMPLE | {"IMEI": "12"}
    result = process(record(0, SAMPLE), replayed(1, SAMPLE), record(2, broken), replayed(3, broken))
    (count,) = result.counts
    assert (count.unique, count.duplicate, count.dead_lettered, count.replayed) == (1, 1, 2, 2)


def test_a_replay_that_fails_again_is_another_dead_letter() -> None:
    """It names the letter and the attempt, with the same bytes too; the same attempt made twice is a duplicate."""
    broken = SAMPLE | {"IMEI": "12"}
    result = process(
        record(0, broken), replayed(1, broken), replayed(2, broken), replayed(3, broken, REPLAY._replace(attempt=3))
    )
    found = letters(result)
    assert [(letter.replay_of, letter.attempt) for letter in found] == [
        (None, 0),
        (REPLAY.dead_letter_id, 2),
        (REPLAY.dead_letter_id, 3),
    ]
    assert len({letter.dead_letter_id for letter in found}) == 3
    assert [timestamp_ms - ARRIVAL_US // 1000 for _, _, timestamp_ms in result.dead_letters] == [
        0,
        86_400_000,
        86_400_000,
    ]


def test_a_replayed_conflict_is_a_dead_letter_of_that_attempt() -> None:
    """A repaired payload whose identity was accepted with other content is not dropped."""
    result = process(record(0, SAMPLE), replayed(1, SAMPLE | {"Changes": 51}))
    (letter,) = letters(result)
    assert letter.conflict_with is not None
    assert (letter.replay_of, letter.attempt) == (REPLAY.dead_letter_id, 2)
    (count,) = result.counts
    assert (count.unique, count.dead_lettered, count.replayed) == (1, 1, 1)


@pytest.mark.parametrize("wrong", [{"replay": "x"}, {"replay_of": ""}, {"replay_attempt": "0"}])
def test_headers_that_cannot_be_read_are_no_replay(wrong: dict[str, str]) -> None:
    """A record of another writer with half of the headers is an ordinary one."""
    headers = {name: text.decode() for name, text in REPLAY.headers()} | wrong
    result = process(record(0, SAMPLE | {"IMEI": "12"}, **headers))
    (letter,) = letters(result)
    assert (letter.replay_of, letter.attempt, result.counts[0].replayed) == (None, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(range(10))), min_size=1, max_size=30))
@settings(max_examples=50)
def test_partitions_processed_together_have_the_outcomes_of_each_alone(sent: list[tuple[int, int]]) -> None:
    """Events, dead letters, states, window rows and counts do not depend on the batches of other partitions."""
    payloads = _payloads()
    records = {number: [record(at, payloads[kind]) for at, (of, kind) in enumerate(sent) if of == number]
               for number in (2, 0, 3, 1)}  # fmt: skip
    batches = [RawBatch(_partition(number), of_partition) for number, of_partition in records.items() if of_partition]
    processor = BatchProcessor(Source("telematics.raw.v1", {}, CLOCK.skew_us), CLOCK, content_of(["Changes"]))
    together = processor.process(batches)
    alone = [result for batch in batches for result in processor.process([batch])]
    assert list(map(_comparable, together)) == list(map(_comparable, alone))


def _partition(number: int) -> PartitionState:
    """A partition that remembers the sample's identity with its content."""
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    remembered = process(record(0, SAMPLE | {"Event": "sos"}), window=window, content=["Changes"])
    window.add(remembered.rows, ARRIVAL_US)
    return PartitionState(number, window, LatestStates())


def _payloads() -> list[bytes | dict[str, Any] | None]:
    """Valid, repeated, conflicting, invalid, of another device, with warnings, unreadable, none."""
    known = SAMPLE | {"Event": "sos"}
    other = SAMPLE | {"IMEI": "490154203237518"}
    return [SAMPLE, known, known | {"Changes": 99}, SAMPLE | {"IMEI": "12"}, other, other | {"Coordinates": "0,0"},
            SAMPLE | {"Device_Time": "2009-06-28T17:52:13.000000+0000"}, b"not JSON", None, b"{}"]  # fmt: skip


def _comparable(result: BatchResult) -> tuple[Any, ...]:
    published = [(one.key, one.value, one.headers) for one in read(result.events)]
    return (
        result.types, published, result.states, result.states_us, result.dead_letters, result.rows.tolist(),
        result.counts, result.latest_us, result.warnings, result.reasons,
    )  # fmt: skip


def test_the_benchmarks_peers_have_the_same_logic() -> None:
    """What peers in Python make of one event at a time is what the stream stage makes of the batch."""
    records = [record(offset, planned.body) for offset, planned in enumerate(islice(generate(1, 50), 300))]
    result = process(*records)
    published = {event.raw.offset: json.loads(msgspec.json.encode(event)) for event in events(result)}
    letter_ids = {letter.dead_letter_id for letter in letters(result)}
    assert len(published) > 250
    assert letter_ids
    for one in records:
        identified = event_logic.identify(one.value or b"", one.headers)
        if one.offset in published:
            assert json.loads(event_logic.clean(identified, 3, one.offset)) == published[one.offset]
        elif identified.event is None:
            assert identified.identity in letter_ids
