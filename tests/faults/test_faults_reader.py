"""The reader that the checker relies on: it sees each record once, also when a read breaks off."""

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from tests.faults import reader

ONE = TopicPartition("telematics.raw.v1", 0)


class Kafka:
    """A consumer of one partition with four records; a read of the second half fails as often as `failures` says."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.at = 0

    def assign(self, _partitions: list[TopicPartition]) -> None:
        pass

    def seek(self, _tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _tp: TopicPartition) -> int:
        return self.at

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 4)

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[SimpleNamespace]]:
        if self.at == 2 and self.failures:
            self.failures -= 1
            raise TimeoutError
        records = [SimpleNamespace(offset=n, value=b"%d" % n) for n in range(self.at, self.at + 2)]
        self.at += 2
        return {ONE: records}


async def test_a_read_that_breaks_off_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch):
    """Half a read, then a whole one: four records, each seen once."""
    kafka = Kafka(failures=1)

    @contextlib.asynccontextmanager
    async def consumer(_bootstrap: str) -> AsyncIterator[Kafka]:
        yield kafka

    async def partitions(_bootstrap: str) -> list[TopicPartition]:
        return [ONE]

    monkeypatch.setattr(reader, "consumer", consumer)
    monkeypatch.setattr(reader, "_partitions", partitions)
    reading = reader.Reader("nowhere")
    with pytest.raises(TimeoutError):
        await reading.read()
    await reading.read()
    assert [seen.offset for seen in reading.seen] == [0, 1, 2, 3]
