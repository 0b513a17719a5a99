"""Records encoded by the column are what aiokafka's own builder makes of them, record by record."""

import numpy as np
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from runtime.adapters.aiokafka import EncodedBatch, encoded_batch, install
from runtime.kafka.record_format import Records, batches_of, encode_headers, encode_records, joined, varint
from tests.unit.published_records import read

_HEADERS = st.dictionaries(st.text(max_size=5), st.binary(max_size=100), max_size=3)
_RECORD = st.tuples(
    st.none() | st.binary(max_size=100),
    st.binary(max_size=300),
    st.integers(0, 2**62),
    _HEADERS,
)
_RECORDS = st.lists(_RECORD, min_size=1, max_size=20)
_ZSTD = 4  # KIP-110


def encoded(records) -> Records:
    """The records, encoded by the column."""
    keys, values, timestamps_ms, headers = zip(*records, strict=True)
    return encode_records(keys, values, np.array(timestamps_ms, np.int64), list(map(encode_headers, headers)))


@given(_RECORDS, st.tuples(st.integers(0, 2**60), st.integers(0, 2**15 - 1), st.integers(0, 2**30)))
def test_a_batch_is_byte_for_byte_that_of_aiokafka(records, producer_state: tuple[int, int, int]) -> None:
    """Keys or none, any value and headers, times that go back and far ahead, any producer."""
    install()
    builder = BatchBuilder(1_000_000, _ZSTD, is_transactional=1)
    for key, value, timestamp_ms, headers in records:
        builder.append(timestamp=timestamp_ms, key=key, value=value, headers=list(headers.items()))
    ((batch,),) = batches_of([encoded(records)], 1_000_000)
    ours = EncodedBatch(batch, "zstd")
    for built in (builder, ours):
        built._set_producer_state(*producer_state)
    assert ours.record_count() == builder.record_count()
    assert encoded_batch(ours) == encoded_batch(builder)


@given(_RECORDS, st.integers(1, 600))
def test_batches_hold_all_records_in_order(records, max_bytes: int) -> None:
    """However small the batches are; none is larger than the bound, but for one that holds a single record."""
    found = read(encoded(records), max_bytes=max_bytes)
    assert [(r.key, r.value, r.timestamp, dict(r.headers)) for r in found] == records
    for batch in batches_of([encoded(records)], max_bytes)[0]:
        assert batch.records == 1 or len(batch.data) <= max_bytes


@given(st.lists(_RECORDS, min_size=1, max_size=4), st.integers(1, 600))
def test_parts_encoded_together_are_what_they_are_alone(parts, max_bytes: int) -> None:
    """The batches of a transaction do not depend on each other."""
    encoded_parts = list(map(encoded, parts))
    alone = [batches_of([part], max_bytes)[0] for part in encoded_parts]
    assert batches_of(encoded_parts, max_bytes) == alone
    many = encoded_parts * 50
    assert batches_of(many, 10_000) == [batches_of([part], 10_000)[0] for part in encoded_parts] * 50


@given(_RECORDS, st.data())
def test_a_part_of_the_records_is_what_they_would_be_alone(records, data) -> None:
    """Records of one type, taken from those of all; and parts put together again."""
    positions = sorted(data.draw(st.sets(st.sampled_from(range(len(records))), min_size=1)))
    chosen = encoded(records).at(positions)
    alone = encoded([records[at] for at in positions])
    assert (list(chosen.bodies), chosen.sizes.tolist()) == (alone.bodies, alone.sizes.tolist())
    assert chosen.timestamps_ms.tolist() == alone.timestamps_ms.tolist()
    together = joined([encoded([record]) for record in records])
    assert together.bodies == encoded(records).bodies


@pytest.mark.parametrize(
    ("number", "bytes_"),
    [(0, "00"), (-1, "01"), (1, "02"), (63, "7e"), (64, "8001"), (-(2**63), "ffffffffffffffffff01"),
     (2**63 - 1, "feffffffffffffffff01")],
)  # fmt: skip
def test_a_varint_is_that_of_protocol_buffers(number: int, bytes_: str) -> None:
    """Zigzag, seven bits a byte, the least significant ones first."""
    assert varint(number).hex() == bytes_
