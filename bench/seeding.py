"""Fills the window's changelog as a day of events would have: random identities, spread over the horizon."""

import time
from collections.abc import Iterator

import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder

from bench.stack import Stack
from bench.workload import EncodedBatch, fill
from schemas import topics
from streams.restoring import encode
from streams.window import WORDS, Rows

_ROWS = 2_000  # in a record: what a batch of this many unique events leaves behind
_RECORDS = 12  # in a batch on the wire: 768 kB
_CHUNK = 1_000_000


async def seed_window(made: Stack, identities: int) -> None:
    """Write so many identities, the oldest a horizon ago, the newest now."""
    random = np.random.default_rng(1)
    horizon_us, now_us = made.settings.window_s * 1_000_000, time.time_ns() // 1_000
    for begin in range(0, identities, _CHUNK):
        rows = random_rows(random, min(_CHUNK, identities - begin))
        stream_time_us = now_us - horizon_us + horizon_us * begin // identities
        await fill(made.bootstrap, topics.WINDOW, list(_batches(rows, stream_time_us, made.settings.topic_partitions)))


def random_rows(random: np.random.Generator, count: int) -> Rows:
    """Rows of so many identities, each with a content."""
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
            yield EncodedBatch(partition, builder.record_count(), bytes(builder._build()))
