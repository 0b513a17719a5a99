"""What uses aiokafka's private parts: its fetcher, batch builder, codec and group coordinator.

`install` patches aiokafka's modules, which offer no other extension point:

- The fetcher hands on records as the C parser made them, and says from which offset on they are complete. This affects
  only consumers whose `value_deserializer` is `as_parsed`.
- A batch may be given its records encoded (`EncodedBatch`).
- zstd is of level 1, by a compressor that is reused, and gzip is ISA-L's of level 1. aiokafka has no compression
  levels: its zstd uses level 3 and a new context for each batch, its gzip level 9; either takes ten times as long.
- Transactions may be fenced by the consumer group (`runtime.adapters.aiokafka_transactions`).
- Consumers can be stopped while a broker is away (`runtime.adapters.aiokafka_closing`).

`tests/unit/test_private_names.py` checks that every private name in `PRIVATE_NAMES` exists in the installed version.
"""

import importlib
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import zstandard
from aiokafka import codec
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from isal import igzip

from runtime.adapters import aiokafka_closing, aiokafka_transactions
from runtime.consumer.batch import Record
from runtime.kafka.record_format import Batch

#: What this module uses and aiokafka does not document: class or module -> names. Instance attributes, which a class
#: sets in its constructor, are listed with the class.
PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "aiokafka.consumer.fetcher:PartitionRecords": ("_consumer_record", "_records_iterator", "_value_deserializer"),
    "aiokafka.consumer.fetcher:FetchResult": (
        "_assignment", "_partition_records", "_topic_partition", "_update_position",
    ),
    "aiokafka.client:AIOKafkaClient": ("_metadata_update",),
    "aiokafka.consumer.consumer:AIOKafkaConsumer": ("_client", "_coordinator", "_max_poll_records", "_subscription"),
    "aiokafka.consumer.group_coordinator:GroupCoordinator": ("_do_commit_offsets",),
    "aiokafka.producer.producer:AIOKafkaProducer": ("_message_accumulator", "_txn_manager"),
    "aiokafka.producer.message_accumulator:BatchBuilder": (
        "_buffer", "_build", "_relative_offset", "_set_producer_state",
    ),
}  # fmt: skip

# Half of level 1's window and table stay in the processor's cache: 25 % less time for 2 % more bytes on large batches.
_ZSTD = zstandard.ZstdCompressionParameters(compression_level=1, window_log=18, hash_log=13)
_compressors = threading.local()  # a compressor is not thread-safe

# The header of a batch: base offset, length, leader epoch, magic, checksum; and from the checksum on: attributes, last
# offset, first and latest timestamp, producer id, producer epoch, base sequence, count of records.
_BATCH_UNCHECKED, _BATCH_CHECKED = struct.Struct(">qiibI"), struct.Struct(">hiqqqhii")
_BATCH_LENGTH_BYTES = 9  # of what the length counts and the checksum does not cover
_TRANSACTIONAL, _MAGIC, _NO_LEADER_EPOCH = 0x10, 2, -1

#: Most bytes of values that one fetch hands on for one partition, plus one record. aiokafka bounds a fetch by its
#: compressed size: one MiB of that can be one GiB of records.
_FETCH_MAX_BYTES = 16 * 2**20


def install() -> None:
    """Patch aiokafka in this process; call at process start. Further calls change nothing."""
    fetcher.PartitionRecords = _PartitionRecords
    fetcher.FetchResult = _FetchResult
    # Batches and their builder (in C, or in Python without the extension) look the functions up in their own module.
    codecs: Any = importlib.import_module(DefaultRecordBatchBuilder.__module__)
    codecs.zstd_encode, codecs.gzip_encode, codecs.gzip_decode = _zstd, _gzip, igzip.decompress
    aiokafka_transactions.install()
    aiokafka_closing.install()


def require_installed() -> None:
    """Raise RuntimeError unless `install` has been called in this process."""
    if fetcher.FetchResult is not _FetchResult:
        raise RuntimeError("aiokafka is not patched: call runtime.adapters.aiokafka.install() at process start")


def compression_type(name: str) -> str | None:
    """Return aiokafka's name of a codec: None for `none`."""
    return None if name == "none" else name


def _zstd(payload: bytes) -> bytes:
    try:
        compressor = _compressors.zstd
    except AttributeError:
        compressor = _compressors.zstd = zstandard.ZstdCompressor(compression_params=_ZSTD)
    return bytes(compressor.compress(payload))


def _gzip(payload: bytes) -> bytes:
    return igzip.compress(payload, 1, mtime=0)


#: By the name of a codec: its number in a batch's attributes (KIP-98, KIP-110), and what compresses.
_CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, _gzip),
    "snappy": (2, codec.snappy_encode),
    "lz4": (3, codec.lz4_encode),
    "zstd": (4, _zstd),
}


# --- producer --------------------------------------------------------------------------------------------------------


class EncodedBatch(BatchBuilder):
    """A batch for `AIOKafkaProducer.send_batch` whose records are encoded already; part of a transaction."""

    def __init__(self, batch: Batch, compression: str) -> None:
        super().__init__(0, 0)  # without a record in it
        self._batch, self._compression = batch, compression
        self._relative_offset = batch.records
        self._buffer: bytes | None = None
        self.close()

    def set_producer(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Set the producer and the batch's place in its sequence, as the header shows them (KIP-98)."""
        self._producer = producer_id, producer_epoch, base_sequence

    _set_producer_state = set_producer

    def _build(self) -> bytes:
        if self._buffer is None:
            number, compress = _CODECS[self._compression]
            self._buffer = _framed(self._batch, number, compress(self._batch.data), self._producer)
            del self._batch
        return self._buffer


def _framed(batch: Batch, codec_number: int, records: bytes, producer: tuple[int, int, int]) -> bytes:
    """Put the header of a batch in front of its compressed records."""
    checked = _BATCH_CHECKED.pack(
        codec_number | _TRANSACTIONAL, batch.records - 1, batch.first_timestamp_ms, batch.max_timestamp_ms,
        *producer, batch.records,
    )  # fmt: skip
    checked += records
    length = _BATCH_LENGTH_BYTES + len(checked)
    return _BATCH_UNCHECKED.pack(0, length, _NO_LEADER_EPOCH, _MAGIC, calc_crc32c(checked)) + checked


def fail_all(producer: Any, error: BaseException) -> None:
    """Fail every batch that the producer still holds, so that stopping it does not wait for a broker."""
    producer._message_accumulator.fail_all(error)


async def partitions_now(producer: Any, topic: str) -> int:
    """Ask a broker how many partitions a topic has; raise KafkaConnectionError if none answers.

    The producer's own metadata may be of an answer that was asked for long ago.
    """
    cluster = ClusterMetadata()
    if not await producer.client._metadata_update(cluster, {topic}):
        raise KafkaConnectionError("no broker answers")
    return len(cluster.partitions_for_topic(topic) or ())


def note_end_of_transaction(producer: Any) -> None:
    """Take note of why a fenced producer's transaction ended: asyncio logs a failure that nobody has looked at."""
    ended = producer._txn_manager.wait_for_transaction_end()
    if ended is not None and ended.done() and not ended.cancelled():
        ended.exception()


def encoded_batch(builder: Any) -> bytes:
    """Return the bytes of a batch as they go to the broker (magic 2, KIP-98)."""
    return bytes(builder._build())


# --- consumer --------------------------------------------------------------------------------------------------------


def max_poll_records(consumer: Any) -> int:
    """Return the `max_poll_records` that the consumer was created with."""
    return int(consumer._max_poll_records)


async def reaches_broker(consumer: Any) -> bool:
    """Ask a broker for metadata; return whether one answered."""
    return bool(await consumer._client.force_metadata_update())


def records_behind(consumer: Any, partition: TopicPartition) -> int:
    """Return the offsets between what was handed out and the last stable offset of the latest fetch.

    0 if the partition is not assigned. Unlike a committed offset, the fetcher's position passes transaction markers.
    """
    subscription = consumer._subscription
    if not subscription.is_assigned(partition):
        return 0
    state = subscription.subscription.assignment.state_value(partition)
    if not state.has_valid_position or state.lso is None:
        return 0
    return int(max(0, state.lso - state.position))


def group_generation(consumer: Any) -> int:
    """Return the consumer group's generation as this member knows it; negative outside a group."""
    return int(consumer._coordinator.generation)


def owns(consumer: Any, partition: TopicPartition) -> bool:
    """Return whether the partition is assigned to this consumer and no rebalance is in progress."""
    subscription = consumer._subscription
    return not subscription.reassignment_in_progress and partition in subscription.assigned_partitions()


async def fetch_committed(consumer: Any, partition: TopicPartition) -> OffsetAndMetadata | None:
    """Ask the broker for the group's committed offset; None if there is none."""
    return (await consumer._coordinator.fetch_committed_offsets([partition])).get(partition)


async def ensure_coordinator_known(consumer: Any) -> None:
    """Wait until the group's coordinator is known."""
    await consumer._coordinator.ensure_coordinator_known()


async def commit_offsets(consumer: Any, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
    """Send one OffsetCommit request under the generation this member has at the call; raise KafkaError.

    The public `commit` would wait for a rebalance and then commit under the new generation.
    """
    await consumer._coordinator._do_commit_offsets(None, offsets)


def as_parsed(value: bytes) -> bytes:
    """Return the value: as a consumer's `value_deserializer`, asks for records as they were parsed (`Record`)."""
    return value


class _PartitionRecords(fetcher.PartitionRecords):
    """Hand on records as they were parsed if asked to: building `ConsumerRecord`s took 13 % of the time."""

    def __iter__(self) -> Any:
        return self._records_iterator  # which aiokafka's `__next__` asks for each record, in Python

    def _consumer_record(self, tp: TopicPartition, record: Record) -> Any:
        return record if self._value_deserializer is as_parsed else super()._consumer_record(tp, record)


class Fetched(list[Record]):
    """The records that one fetch returned for one partition: all at or after `from_offset`."""

    from_offset: int


class _FetchResult(fetcher.FetchResult):
    """Return with the records the offset from which they are complete, so that the consumer can detect a gap."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> Any:
        records = self._partition_records
        if records is None or records._value_deserializer is not as_parsed:
            return super().getall(max_records)
        if not self.check_assignment(self._topic_partition):
            return []
        begin = records.next_fetch_offset
        found, found_bytes, full = Fetched(), 0, False
        for record in records:
            found.append(record)
            found_bytes += len(record.value or b"")
            full = len(found) == max_records or found_bytes > _FETCH_MAX_BYTES
            if full:
                break
        self._update_position()
        if not full:
            self._partition_records = None
        found.from_offset = self._since_the_last_record(begin, records.next_fetch_offset, some=bool(found))
        return found

    def _since_the_last_record(self, begin: int, end: int, *, some: bool) -> int:
        """Return where the records are complete from.

        A fetch of transaction markers alone moves the position without records: the next fetch includes its range.
        """
        state = self._assignment.state_value(self._topic_partition)
        passed_begin, passed_end = _passed_over.pop(state, (begin, begin))
        if passed_end == begin:
            begin = passed_begin
        if not some:
            _passed_over[state] = begin, end
        return begin


#: Offsets without records since the last record (first, and one past the last), by aiokafka's state of a partition.
_passed_over: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
