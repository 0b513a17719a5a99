"""Read back what the stream stage would send to a broker."""

from collections.abc import Iterator
from typing import Any

from aiokafka.record.memory_records import MemoryRecords

from runtime.adapters.aiokafka import EncodedBatch, encoded_batch
from runtime.consumer.batch import Record
from runtime.kafka.record_format import Records, batches_of


def read(records: Records, codec: str = "zstd", max_bytes: int = 900_000) -> list[Record]:
    """The records as aiokafka's parser reads them from the batches."""
    found: list[Record] = []
    for batch in batches_of([records], max_bytes)[0] if records.bodies else ():
        encoded = EncodedBatch(batch, codec)
        encoded.set_producer(7, 1, 0)
        (read,) = _batches(encoded_batch(encoded))
        assert read.validate_crc()
        assert (read.is_transactional, read.producer_id, read.next_offset) == (True, 7, batch.records)
        found += read
    return found


def _batches(built: bytes) -> Iterator[Any]:
    memory = MemoryRecords(built)
    while memory.has_next():
        yield memory.next_batch()
