"""Fill the window's changelog like a day of events: random identities, spread over the retention."""

import time
from collections.abc import Iterator

import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder

from bench.benchmark_stack import BenchmarkStack
from bench.workload import EncodedBatch, fill
from runtime.adapters.aiokafka import encoded_batch
from schemas import topics
from streams.state_restore import encode
from streams.window import WORDS, Rows

_ROWS = 2_000  # per record, as a batch with this many unique events writes
_RECORDS = 12  # per batch on the wire: 768 kB
_CHUNK = 1_000_000


async def seed_window(stack: BenchmarkStack, identities: int) -> None:
    """Write `identities` identities, the oldest one retention ago, the newest now."""
    random = np.random.default_rng(1)
    retention_us, now_us = stack.settings.window_s * 1_000_000, time.time_ns() // 1_000
    for begin in range(0, identities, _CHUNK):
        rows = random_rows(random, min(_CHUNK, identities - begin))
        stream_time_us = now_us - retention_us + retention_us * begin // identities
        await fill(
            stack.bootstrap, topics.WINDOW, list(_batches(rows, stream_time_us, stack.settings.topic_partitions))
        )


def random_rows(random: np.random.Generator, count: int) -> Rows:
    """Return rows of `count` random identities, each with a content."""
    rows = random.integers(1, 2**64 - 1, (count, WORDS), np.uint64)
    rows[:, 0] |= np.uint64(1 << 63)
    return rows


def _batches(rows: Rows, stream_time_us: int, partitions: int) -> Iterator[EncodedBatch]:
    records = [encode(rows[at : at + _ROWS], stream_time_us) for at in range(0, len(rows), _ROWS)]
    for partition in range(partitions):
        of_partition = records[partition::partitions]
        for at in range(0, len(of_partition), _RECORDS):
            builder = BatchBuilder(2**20, 0)
            for value in of_partition[at : at + _RECORDS]:
                builder.append(timestamp=stream_time_us // 1_000, key=b"", value=value)
            yield EncodedBatch(partition, builder.record_count(), encoded_batch(builder))
