"""The deny list of erased devices and drivers: who is on it, and what it keeps from being stored."""

import asyncio
import base64
import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from eventpush.erasure.topics import Retention
from runtime.kafka.deny_list import applied_to, deny_list, pseudonyms
from runtime.kafka.topic_admin import configuration
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import ensure_erasure_key, erasure_key, made_erasure_key
from runtime.platform.settings import load
from schemas import erasure, topics
from schemas.device import Device
from schemas.erasure import Erased, Erasure, Kind, OtherKeyError, Pseudonyms
from schemas.tables import Table
from sinks.clickhouse_writer import ClickHouseWriter
from sinks.row_encoder import EVENT_ROWS, RowEncoder
from streams.batch_processor import BatchProcessor, PartitionState, RawBatch
from streams.content import content_of, default_content_fields
from streams.device_registry import DeviceRegistry
from streams.enrichment import Source
from streams.latest_states import LatestStates
from streams.memory_segment import MemorySegment
from streams.window import DeduplicationWindow, has_device, identity_rows
from tests.unit.published_records import read
from tests.unit.test_batch_processor import CLOCK, SAMPLE, record

KEY = "the key of this test"
IMEI, OTHER = SAMPLE["IMEI"], "350612075195949"
NAMES = Pseudonyms(KEY)
SETTINGS = {"EVENTPUSH_ERASURE_KEY": KEY}


def entry(kind: Kind, name: str, names: Pseudonyms = NAMES) -> tuple[bytes, bytes]:
    """The record on the topic."""
    return names.of(kind, name).encode(), erasure.encode(Erasure(kind, names.key_id, "2026-11-26T10:00:00.000000Z"))


def erased(*names: tuple[Kind, str]) -> Erased:
    """A list with these on it."""
    made = Erased(lambda: NAMES)
    for kind, name in names:
        made.apply(*entry(kind, name))
    return made


def test_the_list_names_nobody() -> None:
    """An entry tells nothing without the key, another key makes other digests, and kinds do not mix."""
    key, value = entry("device", IMEI)
    assert IMEI.encode() not in key + value
    assert NAMES.of("device", IMEI) != Pseudonyms("another key").of("device", IMEI)
    assert NAMES.of("device", "A. Rao") != NAMES.of("driver", "A. Rao")


def test_an_empty_list_needs_no_key_and_denies_nobody() -> None:
    """Whoever never erased anything has nothing to set."""
    made = deny_list(load({"EVENTPUSH_DATA_DIR": "/nowhere"}))
    assert not made
    assert not made.has_device(IMEI)
    assert not made.is_about(b'{"imei":"%s"}' % IMEI.encode())


def test_an_entry_that_cannot_be_read_is_one_clear_error() -> None:
    """No key, or another one: the message names the setting."""
    with pytest.raises(OperatorError, match="EVENTPUSH_ERASURE_KEY is not set"):
        applied_to(deny_list(load({"EVENTPUSH_DATA_DIR": "/nowhere"})))(*entry("device", IMEI))
    other = load({"EVENTPUSH_ERASURE_KEY": "another key of sixteen"})
    with pytest.raises(OperatorError, match="to the key that the erasures were made with"):
        applied_to(deny_list(other))(*entry("device", IMEI))
    with pytest.raises(OtherKeyError):
        Erased(lambda: NAMES).apply(*entry("device", IMEI, Pseudonyms("another key")))


def test_the_key_of_up_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """Commands in the same directory find it; one that is set comes first; a short one is refused without its value."""
    settings = load({"EVENTPUSH_DATA_DIR": str(tmp_path)})
    assert erasure_key(settings) is None
    ensure_erasure_key(settings)
    made = erasure_key(settings)
    ensure_erasure_key(settings)
    assert erasure_key(settings) == made
    assert made is not None
    assert len(made) >= 32
    assert stat.S_IMODE(made_erasure_key(settings).stat().st_mode) == 0o600
    set_one = load({"EVENTPUSH_DATA_DIR": str(tmp_path), "EVENTPUSH_ERASURE_KEY": KEY})
    assert pseudonyms(set_one).key_id == NAMES.key_id
    with pytest.raises(OperatorError) as refused:
        load({"EVENTPUSH_ERASURE_KEY": "too short"})
    assert "EVENTPUSH_ERASURE_KEY" in str(refused.value)
    assert "too short" not in str(refused.value)


def letter(payload: str, **fields: str) -> bytes:
    """A dead letter, as far as the deny list reads it."""
    return msgspec.json.encode({"stage": "streams", "payload": payload, "payload_encoding": "utf-8"} | fields)


@pytest.mark.parametrize(
    ("value", "is_about"),
    [
        (b'{"imei":"%s","driver":null}' % IMEI.encode(), True),
        (b'{"imei":"%s","location":"near %s"}' % (OTHER.encode(), IMEI.encode()), False),
        (b'{"imei":"%s","driver":"A. Rao"}' % OTHER.encode(), True),
        (b'{"imei":"%s","driver":"A. Raoul"}' % OTHER.encode(), False),
        (letter("not JSON: " + IMEI), True),
        (letter("not JSON: 1" + IMEI), False),
        (letter(base64.b64encode(b"\xff" + IMEI.encode()).decode(), payload_encoding="base64"), True),
        (letter('{"imei":"1","driver":"A. Rao"}', stage="sink"), True),
        (letter('{"imei":"1","driver":"A. Rao"}'), False),
        (b"no JSON " + IMEI.encode(), False),
        (None, False),
    ],
)
def test_what_is_about_whom(value: bytes | None, is_about: bool) -> None:
    """An event by its device or driver, a dead letter also by its payload, whatever its encoding."""
    assert erased(("device", IMEI), ("driver", "A. Rao")).is_about(value) is is_about


def test_an_entry_is_taken_off_the_list() -> None:
    """A record without a value does, and only for its key."""
    made = erased(("device", IMEI), ("device", OTHER))
    made.apply(NAMES.of("device", IMEI).encode(), None)
    assert not made.has_device(IMEI)
    assert made.has_device(OTHER)


def test_the_stream_stage_drops_and_counts_erased_devices() -> None:
    """No event, no dead letter, no identity in the window; the account has them; others are as before."""
    sent = [
        record(0, SAMPLE),
        record(1, SAMPLE | {"IMEI": OTHER}),
        record(2, SAMPLE | {"Device_Time": 5}),
        record(3, b"not JSON " + IMEI.encode()),
        record(4, SAMPLE | {"IMEI": "12"}),
    ]
    window = DeduplicationWindow(86_400_000_000, lambda _: MemorySegment())
    content, source = content_of(default_content_fields()), Source("telematics.raw.v1", {}, CLOCK.skew_us)
    denied = erased(("device", IMEI))
    partition = PartitionState(3, window, LatestStates())
    (result,) = BatchProcessor(source, CLOCK, content, denied).process([RawBatch(partition, sent)])
    assert [json.loads(published.value or b"")["imei"] for published in read(result.events)] == [OTHER]
    assert [json.loads(value)["imei"] for _, value, _ in result.dead_letters] == ["12"]
    assert (len(result.rows), set(result.states_us), result.erased) == (2, {OTHER}, 3)
    assert sum(count.erased for count in result.counts) == 3
    counted = sum(count.unique + count.duplicate + count.dead_lettered + count.erased for count in result.counts)
    assert counted == len(sent)


def test_the_registry_forgets_an_erased_driver() -> None:
    """Before and after the entry came, and whichever topic is read first: the device stays, its driver is unknown."""
    registry = DeviceRegistry(load(SETTINGS))
    device = Device("V1", "F", "A. Rao")
    registry.apply(IMEI.encode(), msgspec.json.encode(device))
    assert registry.devices[IMEI] == device
    apply = applied_to(registry.erased, registry.forget_drivers)
    apply(*entry("driver", "A. Rao"))
    registry.finish_loading()
    registry.apply(OTHER.encode(), msgspec.json.encode(device))
    assert registry.devices == dict.fromkeys((IMEI, OTHER), Device("V1", "F", None))
    registry.apply(OTHER.encode(), msgspec.json.encode(Device("V1", "F", "B. Das")))
    apply(*entry("driver", "B. Das"))
    assert registry.devices[OTHER] == Device("V1", "F", None)


class Stored(ClickHouseWriter):
    """A writer that notes its inserts, as IMEIs, and their tokens; the first fails if `on_first` is given."""

    def __init__(self, denied: Erased, on_first: Callable[[], None] | None = None) -> None:
        super().__init__(load({}), denied)
        self.inserts: list[tuple[str, str]] = []
        self._on_first = on_first

    async def _blocks(self, _: RowEncoder, values: Sequence[bytes | None]) -> bytes:
        return " ".join(json.loads(value or b"")["imei"] for value in values).encode()

    async def _insert(self, _: Table, body: bytes, token: str) -> None:
        self.inserts.append((body.decode(), token))
        if self._on_first and len(self.inserts) == 1:
            self._on_first()
            raise TimeoutError

    async def _find_missing(self, *_: Any) -> list[bytes | None]:
        return []


def test_the_sink_leaves_out_erased_rows_and_keeps_the_token() -> None:
    """The insert has the token that it had before the erasure; one of erased rows alone is not made."""
    values = [b'{"imei":"%s"}' % imei.encode() for imei in (IMEI, OTHER)]

    async def inserts(denied: Erased) -> list[tuple[str, str]]:
        writer = Stored(denied)
        await writer.insert(EVENT_ROWS, values, "t", repeated=False)
        await writer.insert(EVENT_ROWS, values[:1], "u", repeated=False)
        return writer.inserts

    before, after = asyncio.run(inserts(erased())), asyncio.run(inserts(erased(("device", IMEI))))
    assert [rows for rows, _ in after] == [OTHER]
    assert after[0][1] == before[0][1]


def test_an_insert_that_waits_learns_of_an_erasure() -> None:
    """ClickHouse was away when the entry came: the retry leaves the rows out."""
    values = [b'{"imei":"%s"}' % imei.encode() for imei in (IMEI, OTHER)]
    denied = erased()

    async def retried() -> list[tuple[str, str]]:
        writer = Stored(denied, on_first=lambda: denied.apply(*entry("device", IMEI)))
        await writer.insert(EVENT_ROWS, values, "t", repeated=False)
        return writer.inserts

    (first, token), (second, again) = asyncio.run(retried())
    assert (first, second) == (f"{IMEI} {OTHER}", OTHER)
    assert token == again


def test_the_windows_rows_are_searched_by_device() -> None:
    """The IMEI of a row is found, and no other."""
    rows = identity_rows([int(IMEI)], np.array([5], np.int64), [b"\xff" * 16], np.array([7], np.uint64))
    assert has_device(rows, int(IMEI))
    assert not has_device(rows, int(OTHER))


def test_when_retention_has_removed_a_topics_records() -> None:
    """After the segment has closed and its retention is over; of a compacted topic, after compaction and tombstone."""
    broker = {"segment.ms": "1000", "delete.retention.ms": "500"}
    settings = load({"EVENTPUSH_TOPIC_RETENTION_H": "1"})
    raw = Retention.of(broker | configuration(topics.RAW_TOPIC, settings))
    assert raw.gone_ms(0) == 3_600_000 + 1_000 + 900_000
    assert Retention.of(broker | configuration(topics.LATEST_TOPIC, settings)).gone_ms(0) == 86_400_000 + 500 + 900_000
    assert Retention.of(broker | {"cleanup.policy": "delete", "retention.ms": "-1"}).gone_ms(0) is None
    never = {"cleanup.policy": "compact", "max.compaction.lag.ms": str(2**63 - 1)}
    assert Retention.of(broker | never).gone_ms(0) is None
