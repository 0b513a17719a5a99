"""A stage leaves when the topics begin to grow, and a producer that chooses partitions learns of more of them."""

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.consumer import growth
from runtime.kafka import partition_count
from runtime.kafka.partition_count import PartitionCount, PartitionsAddedError
from runtime.kafka.raw_gate import Gate, GrowingError
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings


async def test_a_stage_stays_until_the_gate_says_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open gate, a pause and a Kafka that does not answer are no reason to leave."""
    answers: list[Gate | OperatorError | None] = [None, Gate.PAUSED, OperatorError("Kafka is away", ""), Gate.GROWING]

    @contextlib.asynccontextmanager
    async def admin(_: Settings) -> AsyncIterator[None]:
        yield

    async def gate(_: Any) -> Gate | None:
        answer = answers.pop(0)
        if isinstance(answer, OperatorError):
            raise answer
        return answer

    monkeypatch.setattr(growth, "admin", admin)
    monkeypatch.setattr(growth, "gate", gate)
    monkeypatch.setattr(growth, "_INTERVAL_S", 0.0)
    with pytest.raises(GrowingError):
        await growth.leave_when_growing(Settings())
    assert answers == []


async def test_the_number_of_partitions_is_asked_for_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before it is too old, and from then on once in that time; another number is an error."""
    now_s, partitions, asked = 100.0, 4, 0

    async def partitions_now(_producer: Any, _topic: str) -> int:
        nonlocal asked
        asked += 1
        return partitions

    monkeypatch.setattr(partition_count, "partitions_now", partitions_now)
    monkeypatch.setattr("runtime.kafka.partition_count.time", SimpleNamespace(monotonic=lambda: now_s))
    count = PartitionCount(None, "raw", 4, now_s)
    await count.confirm()
    assert asked == 0
    now_s += partition_count.KNOWN_FOR_S
    await count.confirm()
    await count.confirm()
    assert asked == 1
    now_s, partitions = now_s + partition_count.KNOWN_FOR_S, 12
    with pytest.raises(PartitionsAddedError, match="raw has 12 partitions, not 4"):
        await count.confirm()
