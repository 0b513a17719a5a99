"""Metrics, health and logs: what every process has in common."""

import asyncio
import io
import json

import pytest
import structlog
from aiohttp import ClientSession

from embedded import preflight
from runtime.platform import health, logging, metrics
from runtime.platform.errors import OperatorError
from tests.unit.ingress_support import settings


async def fetched(port, path):
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_health_says_what_fails():
    """/readyz is 200 when every check gives None; else 503 with what each said, also one that raises or hangs."""
    said: dict[str, str | None] = {"kafka": None}

    async def kafka():
        return said["kafka"]

    async def broken():
        raise OSError("no such luck")

    [port] = preflight.free_ports(1)
    runner = await health.start(port, {"kafka": kafka})
    try:
        assert await fetched(port, "/readyz") == (200, '{"status": "ready", "failed": {}}')
        said["kafka"] = "gone"
        status, body = await fetched(port, "/readyz")
        assert (status, json.loads(body)["failed"]) == (503, {"kafka": "gone"})
        assert (await fetched(port, "/healthz"))[0] == 200
        status, body = await fetched(port, "/metrics")
        assert status == 200
        assert "# TYPE" in body
        with pytest.raises(OperatorError, match=str(port)):
            await health.start(port, {})
    finally:
        await health.stop(runner)
    assert await health.failures({"broken": broken}) == {"broken": "OSError: no such luck"}


async def test_a_check_that_hangs_has_failed(monkeypatch):
    """A check that gives no answer in time is a failed check."""
    monkeypatch.setattr(health, "_CHECK_TIMEOUT_S", 0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    assert await health.failures({"slow": hang}) == {"slow": "no answer within 0.01 s"}


def test_many_observations_at_once_are_the_same_as_one_by_one():
    """Each lands in the bucket that it would be in alone, a bound itself below it, and the sum is theirs."""
    amounts = [0.0, 1.0, 1.5, 2.0, 2.0, 99.0]
    at_once, singly = (
        metrics.BulkHistogram(name, "", buckets=(1, 2, 5), registry=None) for name in ("at_once", "singly")
    )
    at_once.observe_all(amounts)
    for amount in amounts:
        singly.observe(amount)
    first, second = (
        [
            (sample.labels, sample.value)
            for sample in next(iter(made.collect())).samples
            if not sample.name.endswith("_created")
        ]
        for made in (at_once, singly)
    )
    assert first == second


def test_metrics_are_declared_once_and_named_alike():
    """Each metric has its own name, begins with eventpush_, says what it means, and is in the table."""
    table = metrics.table()
    names = [name for name, *_ in table]
    assert len(names) == len(set(names))
    assert all(name.startswith("eventpush_") for name in names)
    assert all(meaning.endswith(".") for *_, meaning in table)
    assert "eventpush_ingress_events_total" in names


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_logs_have_one_shape(log_format):
    """Our lines and those of the standard library's loggers: one line each, with time, level and process."""
    import logging as stdlib  # noqa: PLC0415 - its name is that of ours

    root, stream = stdlib.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logging.setup(settings(log_format=log_format), "worker", stream)
    try:
        structlog.get_logger("x").info("ours", number=1)
        stdlib.getLogger("theirs").warning("theirs %d", 2)
        stdlib.getLogger("aiokafka").error("one of a thousand retries")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    ours, theirs = stream.getvalue().splitlines()
    assert "ours" in ours
    assert "theirs 2" in theirs
    assert all("worker" in line for line in (ours, theirs))
    if log_format == "json":
        assert json.loads(ours)["number"] == 1
