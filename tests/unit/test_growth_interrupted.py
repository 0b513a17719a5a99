"""A growth that is interrupted while it waits for the stages gives up, unless another one goes on."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import ProducerFenced

from eventpush.growth.grow import _Grower
from eventpush.growth.routing import Growth
from runtime.platform.settings import load


class Waiting(_Grower):
    """A growth whose stages never finish; `calls` has what it does when it is interrupted."""

    def __init__(self, *, is_fenced: bool = False) -> None:
        self.said: list[str] = []
        self.calls: list[str] = []
        self._is_fenced = is_fenced
        super().__init__(load({}), None, 12, self.said.append)

    async def _finish(self, _growth: Growth) -> None:
        await asyncio.Event().wait()

    async def _require_alone(self, _producer: Any) -> None:
        self.calls.append("require alone")
        if self._is_fenced:
            raise ProducerFenced

    async def _open(self) -> None:
        self.calls.append("open")


async def test_it_opens_the_gate_again() -> None:
    """Nothing was moved, so events are accepted again; the interruption goes on to whoever caused it."""
    growth = Waiting()
    task = asyncio.create_task(growth._prepare(None, Growth(4, 12)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert growth.calls == ["require alone", "open"]
    assert growth.said[-1] == "given up before anything was moved: events are accepted again"


async def test_it_leaves_the_gate_to_another_growth() -> None:
    """One that began meanwhile may be moving behind it."""
    growth = Waiting(is_fenced=True)
    task = asyncio.create_task(growth._prepare(None, Growth(4, 12)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(ProducerFenced):
        await task
    assert growth.calls == ["require alone"]
