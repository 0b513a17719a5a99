"""What we write to Kafka is compressed by functions of ours, and every reader can read it."""

import gzip

import cramjam
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from runtime.adapters import aiokafka as adapter
from runtime.kafka.record_format import records_of
from tests.unit.published_records import read

GZIP, ZSTD = 1, 4  # KIP-98, KIP-110
VALUES = [b'{"Event":"overspeed","IMEI":"350612075195931","Changes":%d}' % n for n in range(500)]
HEADER_BYTES = 61  # of a batch before its records (KIP-98)


def test_a_batch_is_compressed_at_our_level() -> None:
    """The producers' batches hold what zstd at level 1 makes of the records, and read back as they were."""
    adapter.install()
    builder = BatchBuilder(1_000_000, ZSTD)
    for n, value in enumerate(VALUES):
        builder.append(key=b"k", value=value, timestamp=n)
    built = adapter.encoded_batch(builder)
    records = bytes(cramjam.zstd.decompress(built[HEADER_BYTES:]))
    assert built[HEADER_BYTES:] == adapter._zstd(records)
    assert [record.value for record in MemoryRecords(built).next_batch()] == VALUES


def test_gzip_is_written_and_read_by_isa_l() -> None:
    """At its level 1; any gzip reads it, and aiokafka's reader reads it with ISA-L."""
    adapter.install()
    builder = BatchBuilder(1_000_000, GZIP)
    for n, value in enumerate(VALUES):
        builder.append(key=b"k", value=value, timestamp=n)
    built = adapter.encoded_batch(builder)
    assert built[HEADER_BYTES:] == adapter._gzip(gzip.decompress(built[HEADER_BYTES:]))
    assert [record.value for record in MemoryRecords(built).next_batch()] == VALUES


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_of_every_codec_are_read_back(compression: str) -> None:
    """A transaction's batches, by each value of EVENTPUSH_STREAMS_COMPRESSION."""
    records = records_of([(b"k", value, n) for n, value in enumerate(VALUES)])
    assert [record.value for record in read(records, compression)] == VALUES


@pytest.mark.parametrize(("name", "type_"), [("none", None), ("zstd", "zstd"), ("gzip", "gzip")])
def test_none_is_no_codec(name: str, type_: str | None) -> None:
    """The setting's `none` is what aiokafka calls None."""
    assert adapter.compression_type(name) == type_
