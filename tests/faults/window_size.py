"""How much memory the window takes for each live identity, and how long a worker needs to restore it from Kafka.

    python -m tests.faults.window_size --bootstrap 127.0.0.1:9092 --identities 5000000 [--store rocksdb]

The broker needs no topics of ours; a topic `test.window-…` is made. Prints one line for each measure.
"""

import argparse
import asyncio
import functools
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from runtime.settings import Settings, load
from runtime.topics_admin import admin, create
from schemas.topics import type_topic
from streams.disk_generation import DiskGeneration
from streams.memory_generation import MemoryGeneration
from streams.restoring import encode, reader, restore
from streams.window import WORDS, Generation, IdentityWindow, Rows

_BATCH_ROWS = 500  # what a transaction of the stream stage remembers, at a middling load
_HORIZON_US = 86_400_000_000


def rows(rng: np.random.Generator, count: int) -> Rows:
    """Rows as they come of events: the IMEI's word is marked, the digest's words are uniform."""
    made = rng.integers(1, 2**64 - 1, size=(count, WORDS), dtype=np.uint64)
    made[:, 0] |= np.uint64(1 << 63)
    return made


async def fill(settings: Settings, topic: str, identities: int) -> None:
    """Write a changelog that spans the whole horizon: every generation is alive."""
    async with admin(settings) as client:
        await create(client, settings, [type_topic(topic)])
    rng, now_us = np.random.default_rng(1), time.time_ns() // 1_000
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", max_batch_size=900_000, compression_type="snappy"
    )
    await producer.start()
    for done in range(0, identities, _BATCH_ROWS):
        arrived_us = now_us - _HORIZON_US + _HORIZON_US * done // identities
        await producer.send(
            topic, encode(rows(rng, _BATCH_ROWS), arrived_us), key=b"", partition=done // _BATCH_ROWS % 4
        )
    await producer.stop()


async def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--identities", type=int, default=5_000_000)
    parser.add_argument("--store", choices=["memory", "rocksdb"], default="memory")
    given = parser.parse_args()
    settings = load({"EVENTPUSH_KAFKA_BOOTSTRAP": given.bootstrap})
    topic = f"test.window-{time.time_ns()}"
    await fill(settings, topic, given.identities)

    with tempfile.TemporaryDirectory() as directory:
        await _measure(settings, topic, given.store, Path(directory))
    return 0


async def _measure(settings: Settings, topic: str, store: str, directory: Path) -> None:
    def generation(partition: int, span: int) -> Generation:
        return MemoryGeneration() if store == "memory" else DiskGeneration(directory / f"{partition}-{span}")

    partitions = range(settings.topic_partitions)
    windows = [IdentityWindow(_HORIZON_US, functools.partial(generation, partition)) for partition in partitions]
    before, began_s, began_cpu_s = _resident(), time.monotonic(), time.process_time()
    await asyncio.gather(*(_restore(settings, TopicPartition(topic, n), window) for n, window in enumerate(windows)))
    identities = sum(map(len, windows))
    _say(f"identities restored: {identities}")
    _say(f"seconds: {time.monotonic() - began_s:.1f}, of the processor: {time.process_time() - began_cpu_s:.1f}")
    _say(f"bytes of resident memory for each: {(_resident() - before) / identities:.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    _say(f"peak of the process: {peak / 1e6:.0f} MB")
    for window in windows:
        window.advance(time.time_ns() // 1_000 + 2 * _HORIZON_US)
    left = sum(map(len, windows))
    _say(f"after all have expired: {left} identities, {(_resident() - before) / 1e6:.0f} MB more than before")


async def _restore(settings: Settings, changelog: TopicPartition, window: IdentityWindow) -> None:
    async with reader(settings, changelog) as consumer:
        await restore(consumer, changelog, window)


def _resident() -> int:
    """Bytes of resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is a program


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
