"""Large bodies are worked on a little at a time, and are not held without end."""

import asyncio
import gzip
import json
import time
from itertools import count

import pytest

from ingress import time_slicing
from ingress.time_slicing import TimeSlicing
from tests.unit.ingress_support import BODY, EVENT, request, running

WIDE = json.dumps(EVENT | {"more": [[]] * 50_000}, separators=(",", ":")).encode()
LARGE = b"[" + b",".join([WIDE] * 20) + b"]"


@pytest.fixture
def every_step_is_a_turn(monkeypatch):
    """A clock that is a second later each time."""
    monkeypatch.setattr(time_slicing, "perf_counter", count().__next__)


async def test_one_at_a_time_and_others_between(every_step_is_a_turn):
    """After its first slice a body waits until no other is worked on; the loop runs between the steps."""
    steps = []

    def work(name):
        for number in range(3):
            steps.append(f"{name}{number}")
            yield number

    async def others():
        while True:
            await asyncio.sleep(0)
            if steps[-1] != "others":
                steps.append("others")

    beside = asyncio.create_task(others())
    taking = TimeSlicing()
    assert tuple(await asyncio.gather(taking.run(work("a")), taking.run(work("b")))) == ([0, 1, 2], [0, 1, 2])
    beside.cancel()
    assert [step for step in steps if step != "others"] == ["a0", "b0", "a1", "a2", "b1", "b2"]
    assert all("others" in steps[steps.index(one) : steps.index(other)] for one, other in (("a1", "a2"), ("b1", "b2")))


async def test_a_failing_body_lets_the_next_one_in(every_step_is_a_turn):
    """A body that is refused in the middle of it gives its place away."""

    def broken():
        yield 1
        yield 2
        raise ZeroDivisionError

    taking = TimeSlicing()
    with pytest.raises(ZeroDivisionError):
        await taking.run(broken())
    assert await taking.run(iter([1, 2])) == [1, 2]


@pytest.mark.parametrize(
    ("body", "given"),
    [
        (LARGE, {}),
        (gzip.compress(LARGE), {"Content_Encoding": "gzip"}),
        (LARGE, {"path": "/api/events/validate"}),
    ],
    ids=["plain", "gzip", "validate"],
)
async def test_the_loop_is_not_held_by_a_large_body(body, given):
    """While a body of megabytes is inflated, parsed and processed, no iteration of the loop takes most of that time."""
    longest_s, ended = 0.0, asyncio.Event()

    async def watch():
        nonlocal longest_s
        while not ended.is_set():
            begun = time.thread_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - begun)

    async with running(ingress_body_max_bytes=4_000_000) as ingress:
        watching = asyncio.create_task(watch())
        taken_s = -time.thread_time()
        assert (await ingress.post(body, **given)).status == 200
        taken_s += time.thread_time()
        ended.set()
        await watching
    assert longest_s < taken_s / 2


async def test_bodies_that_are_still_coming_are_bounded():
    """Beyond the bound a body that trickles is 503, small events are still accepted, and afterwards there is room."""
    part = request(b"{" + b" " * 600_000, Content_Length="600002")
    async with running(ingress_inflight_max_bytes=1_048_576, ingress_event_max_bytes=700_000) as ingress:
        slow_reader, slow = await ingress.connect()
        slow.write(part)
        await slow.drain()
        async with asyncio.timeout(5):
            while (answer := await ingress.send(part + b"}")).status != 503:
                pass
        assert answer.message == "too many bodies in transit; retry"
        assert answer.headers["retry-after"] == "1"
        assert (await ingress.post(BODY)).status == 200
        slow.write(b"}")
        assert (await asyncio.wait_for(slow_reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
        slow.close()
        assert (await ingress.send(part + b"}")).status == 200


async def test_pipelined_requests_take_turns():
    """A client that sends many requests at once does not keep the loop for all of them."""
    turns_between = 0

    async def watch():
        nonlocal turns_between
        while True:
            await asyncio.sleep(0)
            turns_between += 1

    async with running() as ingress:
        reader, writer = await ingress.connect()
        watching = asyncio.create_task(watch())
        writer.write(request(b"[]") * 30)
        await asyncio.sleep(0)
        before = turns_between
        answers = await reader.readuntil(b"}")
        while answers.count(b"HTTP/1.1 400 ") < 30:
            answers += await reader.read(65_536)
        assert turns_between - before >= 30
        watching.cancel()
        writer.close()
