"""What becomes of a batch."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.consumer.batch import Record
from schemas import times
from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.identity import uuid_text
from streams.batch_processor import BatchProcessor, BatchResult, event_ids_of
from streams.enrichment import Device
from streams.memory_segment import MemorySegment
from streams.window import DeduplicationWindow

EXAMPLES = sorted(Path("schemas/examples").glob("*.json"))
SAMPLE = json.loads(Path("schemas/examples/overspeed.json").read_text())
ARRIVAL_US = times.parse("2024-06-28T18:49:46.250000+0000")


def record(offset: int, value: bytes | dict[str, Any] | None, **headers: str) -> Record:
    """A raw record as the consumer hands it on."""
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    named = {"arrival_us": str(ARRIVAL_US), "receipt_id": f"r-{offset}", **headers}
    return SimpleNamespace(  # type: ignore[return-value]  # it has what a Record has
        offset=offset,
        timestamp=ARRIVAL_US // 1000,
        key=b"350612075195931",
        value=raw,
        headers=[(name, text.encode()) for name, text in named.items()],
    )


def judge(
    *records: Record, devices: dict[str, Device] | None = None, window: DeduplicationWindow | None = None
) -> BatchResult:
    """The outcome of records on partition 3."""
    window = window or DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    return BatchProcessor("telematics.raw.v1", 3, window, devices or {}, 300_000_000).judge(records)


def events(result: BatchResult) -> list[Event]:
    """The published events, decoded as a subscriber would."""
    return [msgspec.json.decode(value, type=Event) for _, value, _ in result.events]


def letters(result: BatchResult) -> list[DeadLetter]:
    """The dead letters, decoded."""
    return [msgspec.json.decode(value, type=DeadLetter) for _, value, _ in result.dead_letters]


def test_the_sample_is_enriched() -> None:
    """Every added value of the API document's sample is the known one; H3 cells are those of ClickHouse's geoToH3."""
    device = Device("MH 12 AB 1234", "North", "A. Rao")
    (event,) = events(judge(record(7, SAMPLE), devices={"350612075195931": device}))
    assert event.event_id == "b42ed2be-4d46-2cd9-e3bd-dfac9dcd1633"
    assert event.received_at == "2024-06-28T18:49:46.250000Z"
    assert (event.time_zone, event.device_time_local) == ("Asia/Kolkata", "2024-06-28T23:22:13.000000+05:30")
    assert (event.h3_r7, event.h3_r9) == (609069382156419071, 618076581399625727)
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
    (event,) = events(judge(record(0, path.read_bytes())))
    sent = json.loads(path.read_bytes())
    assert (event.event, event.changes, event.geofence_name) == (sent["Event"], sent["Changes"], sent["Geofence_Name"])
    assert {name: json.loads(bytes(raw)) for name, raw in event.extra.items()} == {
        name: value for name, value in sent.items() if name not in SAMPLE
    }


def test_a_retry_is_dropped_and_counted() -> None:
    """Same identity and content is one event, though the platform's Server_Time and Location differ."""
    retry = {**SAMPLE, "Server_Time": "2024-06-28T18:49:46.000000+0000", "Location": "elsewhere"}
    spelled = {**SAMPLE, "Device_Time": "2024-06-28T17:52:13Z"}
    result = judge(record(0, SAMPLE), record(1, retry), record(2, spelled))
    assert len(result.events) == 1
    assert not result.dead_letters
    (count,) = result.counts
    assert (count.minute, count.event, count.unique, count.duplicate) == ("2024-06-28T18:49Z", "overspeed", 1, 2)


@pytest.mark.parametrize(
    "changed", [{"Event": "sos"}, {"Geofence_Name": "Depot"}, {"Geofence_Name": ""}, {"IMEI": "1" * 15}]
)
def test_another_identity_is_another_event(changed: dict[str, Any]) -> None:
    """Two events of one device in the same instant are both kept."""
    result = judge(record(0, SAMPLE), record(1, {**SAMPLE, **changed}))
    assert len({event.event_id for event in events(result)}) == 2


@pytest.mark.parametrize("changed", [{"Changes": 51}, {"Coordinates": "22.927969,75.533275"}])
def test_a_conflict_is_a_dead_letter_that_points_to_the_event(changed: dict[str, Any]) -> None:
    """Same identity, other content: never dropped; both can be seen."""
    result = judge(record(0, SAMPLE), record(1, {**SAMPLE, **changed}))
    (event,), (letter,) = events(result), letters(result)
    assert [reason.code for reason in letter.reasons] == ["conflict"]
    assert letter.conflict_with is not None
    assert letter.conflict_with.event_id == event.event_id
    assert json.loads(letter.payload)["IMEI"] == SAMPLE["IMEI"]


def test_a_dead_letter_has_every_reason_and_the_bytes() -> None:
    """What breaks rules keeps its bytes, its position and all its reasons."""
    (letter,) = letters(judge(record(9, {**SAMPLE, "IMEI": "12", "Coordinates": "95,75"})))
    assert [(reason.code, reason.field) for reason in letter.reasons] == [
        ("bad_format", "IMEI"),
        ("out_of_range", "Coordinates"),
    ]
    assert (letter.event, letter.imei, letter.raw.offset, letter.receipt_id) == ("overspeed", "12", 9, "r-9")
    assert json.loads(letter.payload) == {**SAMPLE, "IMEI": "12", "Coordinates": "95,75"}


def test_bytes_that_are_no_text_are_kept_in_base64() -> None:
    """Nothing that was acknowledged is lost because it is unreadable; a tombstone is kept too."""
    binary, empty = letters(judge(record(0, b"\xff\xfe"), record(1, None)))
    assert (binary.payload, binary.payload_encoding) == ("//4=", "base64")
    assert (empty.payload, empty.payload_encoding) == ("", "utf-8")


def test_a_dead_letters_repeat_is_a_duplicate() -> None:
    """The same broken bytes again are dropped and counted: a retry is once in the dead letters."""
    broken = {**SAMPLE, "IMEI": "12"}
    conflict = {**SAMPLE, "Changes": 51}
    result = judge(*(record(n, v) for n, v in enumerate([SAMPLE, broken, conflict, conflict, broken])))
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
    whole = judge(*records)
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    pieces = []
    for begin in range(0, len(records), size):
        piece = judge(*records[begin : begin + size], window=window)
        window.add(piece.rows, piece.latest_us)
        pieces.append(piece)
    assert [output for piece in pieces for output in piece.events] == whole.events
    assert [output for piece in pieces for output in piece.dead_letters] == whole.dead_letters
    assert sum(c.unique + c.duplicate + c.dead_lettered for p in pieces for c in p.counts) == len(values)


def test_after_a_commit_the_same_batch_is_all_duplicates() -> None:
    """Processed twice, the result is that of once."""
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    records = [record(n, path.read_bytes()) for n, path in enumerate(EXAMPLES)]
    first = judge(*records, window=window)
    window.add(first.rows, first.latest_us)
    again = judge(*records, window=window)
    assert not again.events
    assert not again.dead_letters
