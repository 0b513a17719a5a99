"""What we write to Kafka is zstd of our making, and every reader can read it."""

import cramjam
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from runtime.adapters import aiokafka as adapter

ZSTD = 4  # KIP-110
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
    assert built[HEADER_BYTES:] == adapter._compress(records)
    assert [record.value for record in MemoryRecords(built).next_batch()] == VALUES


@pytest.mark.parametrize(("name", "type_"), [("none", None), ("zstd", "zstd"), ("gzip", "gzip")])
def test_none_is_no_codec(name: str, type_: str | None) -> None:
    """The setting's `none` is what aiokafka calls None."""
    assert adapter.compression_type(name) == type_
