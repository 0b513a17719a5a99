"""What moves, in which order, and to where."""

from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eventpush.growth.moving import Merged, kinds
from eventpush.growth.routing import Growth
from ingress.batching import partition_of
from runtime.platform.settings import load
from streams.memory_segment import MemorySegment
from streams.state_restore import decode, encode
from streams.window import DeduplicationWindow, DedupResult, Rows, identity_rows

WINDOW_S = 4_000
SETTINGS = load({"EVENTPUSH_WINDOW_S": str(WINDOW_S), "EVENTPUSH_SENDER_RETRY_S": str(WINDOW_S)})
WINDOW_KIND, STATE_KIND = kinds(SETTINGS)
GROWTH = Growth(4, 6)  # not a multiple: keys come to old partitions too
FIRST_IMEI = 350_000_000_000_000


def rows_of(imeis: list[int], device_us: int) -> Rows:
    digests = [imei.to_bytes(8, "little") + device_us.to_bytes(8, "little") for imei in imeis]
    return identity_rows(imeis, np.full(len(imeis), device_us, np.int64), digests, np.ones(len(imeis), np.uint64))


def record(offset: int, time: int, value: bytes = b"", key: bytes | None = b"") -> Any:
    return SimpleNamespace(offset=offset, timestamp=time, value=value, key=key)


times = st.dictionaries(st.integers(0, 3), st.lists(st.integers(0, 50), max_size=12), min_size=1)


@given(times, st.integers(1, 4))
def test_records_are_handed_out_by_time(of_partition: dict[int, list[int]], fetched: int) -> None:
    """However they are fetched: those of a partition in order, and none after a later one of another partition.

    A time that goes back within a partition counts as the latest before it.
    """
    waiting = {p: [record(at, time) for at, time in enumerate(found)] for p, found in of_partition.items()}
    counted = {p: list(accumulate(found, max)) for p, found in of_partition.items()}
    merged = Merged(waiting, lambda found: int(found.timestamp))
    taken: list[tuple[int, int]] = []
    latest = 0
    while not all(map(merged.is_finished, of_partition)):
        for partition in merged.hungry:
            merged.add(partition, waiting[partition][:fetched])
            del waiting[partition][:fetched]
            if not waiting[partition]:
                merged.end(partition)
        chunk = [(partition, found.offset) for partition, records in merged.take().items() for found in records]
        chunk_times = [counted[partition][offset] for partition, offset in chunk]
        assert min(chunk_times, default=latest) >= latest
        latest = max(chunk_times, default=latest)
        taken += chunk
    for partition, found in of_partition.items():
        assert [offset for p, offset in taken if p == partition] == list(range(len(found)))


@given(st.lists(st.tuples(st.integers(0, 199), st.integers(1, 2 * WINDOW_S)), max_size=40), st.integers(1, 5))
def test_windows_after_the_move_know_what_those_before_it_knew(arrivals: list[tuple[int, int]], pieces: int) -> None:
    """What a window of the old partition would call a duplicate, that of the new one does."""
    chunk: dict[int, list[Any]] = {source: [] for source in range(GROWTH.before)}
    before = {source: DeduplicationWindow(WINDOW_S * 1_000_000, lambda _: MemorySegment()) for source in chunk}
    known = []
    for number, (device, arrived_s) in enumerate(sorted(arrivals, key=lambda arrival: arrival[1])):
        imei, time_us = FIRST_IMEI + device, arrived_s * 1_000_000
        source = partition_of(b"%015d" % imei, GROWTH.before)
        rows = rows_of([imei], number)
        before[source].add(rows, time_us)
        chunk[source].append(record(number, time_us // 1000, encode(rows, time_us)))
        known.append((imei, source, rows))
    after = {p: DeduplicationWindow(WINDOW_S * 1_000_000, lambda _: MemorySegment()) for p in range(GROWTH.after)}
    last_us = dict.fromkeys(after, 0)
    moved = 0
    for piece in range(pieces):  # transactions, by time
        begin, end = 2 * WINDOW_S * 1000 * piece // pieces, 2 * WINDOW_S * 1000 * (piece + 1) // pieces
        part = {s: [r for r in records if begin < r.timestamp <= end] for s, records in chunk.items()}
        written = WINDOW_KIND.route(part, GROWTH)
        moved += written.things
        for target, outputs in written.outputs.items():
            for output in outputs:
                assert output.value is not None
                rows, time_us = decode(output.value)
                assert time_us >= last_us[target]
                last_us[target] = time_us
                after[target].add(rows, time_us)
    assert moved == len(arrivals)
    for imei, _, rows in known:
        target = partition_of(b"%015d" % imei, GROWTH.after)
        if (last_us[target] - min(last_us[target], _arrived_us(chunk, rows))) < WINDOW_S * 1_000_000:
            assert after[target].classify(rows).tolist() == [DedupResult.DUPLICATE]


def _arrived_us(chunk: dict[int, list[Any]], rows: Rows) -> int:
    found = [decode(r.value) for records in chunk.values() for r in records]
    return next(time_us for stored, time_us in found if (stored == rows).all())


def test_states_and_deleted_keys_go_to_their_keys_partition() -> None:
    """With their time; a deletion is one there too, since the state that it deletes is moved before it."""
    imei = b"350612075195931"
    moved = STATE_KIND.route({1: [record(0, 5, b"{}", imei), record(1, 7, None, imei)]}, GROWTH)  # type: ignore[arg-type]
    assert moved.outputs == {partition_of(imei, 6): [(imei, b"{}", 5), (imei, None, 7)]}
    assert moved.things == 2


def test_large_batches_are_several_records() -> None:
    """A record of the window stays below what a broker takes."""
    imeis = [FIRST_IMEI + number for number in range(60_000)]
    chunk = {0: [record(0, 1, encode(rows_of(imeis, 1), 1_000))]}
    outputs = WINDOW_KIND.route(chunk, GROWTH).outputs
    values = [output.value for found in outputs.values() for output in found if output.value is not None]
    assert sum(len(decode(value)[0]) for value in values) == len(imeis)
    assert max(map(len, values)) < 300_000
