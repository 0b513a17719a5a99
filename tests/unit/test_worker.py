"""How a worker process ends."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.consumer import worker


class HangingApp:
    """A Faust app that runs, and that does not come to its end."""

    def __init__(self, home: Path) -> None:
        self.conf = SimpleNamespace(datadir=home)

    async def start(self) -> None:
        """Runs."""
        await asyncio.Event().wait()

    stop = crash = start


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector of the tests' process stays as it is."""
    monkeypatch.setattr(worker, "tune_garbage_collector", lambda: None)


async def test_a_broken_worker_does_not_wait_for_an_orderly_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What hangs while a worker ends that has failed, as its Kafka connection may, holds its successor up for a moment
    only, and not for as long as an orderly stop may take.
    """
    monkeypatch.setattr(worker, "FAILED_STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(worker, "STOP_TIMEOUT_S", 3_600.0)
    running = worker.Worker()
    app: Any = HangingApp(tmp_path)
    tasks: Any = SimpleNamespace()
    ending = asyncio.create_task(running.run(app, tasks))
    await asyncio.sleep(0)
    running.fail(RuntimeError("fenced"))
    assert await asyncio.wait_for(ending, 10) == 1


async def test_work_that_is_cancelled_from_within_fails_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library that lets a CancelledError out ends what runs beside the app: the worker does not go on without it."""
    monkeypatch.setattr(worker, "FAILED_STOP_TIMEOUT_S", 0.01)

    async def beside() -> None:
        raise asyncio.CancelledError

    app: Any = HangingApp(tmp_path)
    tasks: Any = SimpleNamespace()
    assert await asyncio.wait_for(worker.Worker().run(app, tasks, beside), 10) == 1
