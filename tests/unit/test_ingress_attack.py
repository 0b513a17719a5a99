"""An attack of every kind at once against a door in its own process: its memory stays flat, others are served."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from tests.stack import ROOT
from tests.unit.door_process import door_process
from tests.unit.ingress_support import Running, read_answer, request

GROWTH_MAX_BYTES = 40_000_000  # an attack that is held in memory would be several hundred
SENDERS_PATIENCE_S = 2.0


async def latencies_s(door: Running, count: int) -> list[float]:
    """A healthy client: one event after the other on one connection, each accepted."""
    reader, writer = await door.connect()
    taken = []
    for _ in range(count):
        begun = time.monotonic()
        writer.write(request())
        assert (await read_answer(reader)).status == 200
        taken.append(time.monotonic() - begun)
    writer.close()
    return sorted(taken)


@contextlib.contextmanager
def attackers(port: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", "tests.unit.attackers", str(port)], cwd=ROOT) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


async def test_memory_stays_flat_and_a_healthy_client_is_served():
    """Slow heads and bodies, bombs, deep nesting, bodies without end, pipelines, silence at reading, noise: the process
    does not grow with the attack, and every event of another client is accepted well within the sender's patience.
    """
    with door_process(ingress_header_timeout_s=2, ingress_body_timeout_s=2) as (process, port):
        door = Running(port, None)
        await latencies_s(door, 100)
        with attackers(port):
            await asyncio.sleep(2)  # all of it is under way, and what is made once is made
            before = psutil.Process(process.pid).memory_info().rss
            attacked = []
            until = time.monotonic() + 4  # longer than the times for heads and bodies
            while time.monotonic() < until:
                attacked += await latencies_s(door, 20)
            grown = psutil.Process(process.pid).memory_info().rss - before
        afterwards = await latencies_s(door, 100)
    p99 = sorted(attacked)[int(len(attacked) * 0.99)]
    assert grown < GROWTH_MAX_BYTES
    assert p99 < SENDERS_PATIENCE_S / 4
    assert max(attacked) < SENDERS_PATIENCE_S
    assert afterwards[-1] < SENDERS_PATIENCE_S
