"""Attacks against an ingress in its own process, by attackers in theirs: its memory stays flat, others are served."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.stack import ROOT
from tests.unit.attackers import KINDS
from tests.unit.ingress_process import ingress_process
from tests.unit.ingress_support import Running, read_answer, request

pytestmark = pytest.mark.load

HELD_MAX_BYTES = 20_000_000  # of bodies that are still coming in
GROWTH_MAX_BYTES = 20_000_000  # in a round; an attack that is held in memory takes several times as much
ROUNDS_MAX = 8  # the allocator's memory grows in the first ones, to what the held bodies and their parsing need
SENDERS_PATIENCE_S = 2.0
HONEST = 4  # senders of large arrays: the client's latency beside them is the measure
# A step of the largest body that is accepted may take a few times as long as one of the honest neighbours' arrays.
# Inflated and parsed in one go, such a body held everybody up 200 times as long.
WORSE_THAN_HONEST_MAX = 20
LOOKS = 3  # the attacker and the machine's other work take processor time from the healthy client too


async def latencies_s(ingress: Running, count: int) -> list[float]:
    """A healthy client: one event after the other on one connection, each accepted."""
    reader, writer = await ingress.connect()
    taken = []
    for _ in range(count):
        begun = time.monotonic()
        writer.write(request())
        assert (await read_answer(reader)).status == 200
        taken.append(time.monotonic() - begun)
    writer.close()
    return taken


async def latencies_beside(kinds: list[str], ingress: Running, for_s: float) -> list[float]:
    """The healthy client's latencies while all of `kinds` are under way, ascending."""
    taken: list[float] = []
    with attackers(ingress.port, kinds):
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            taken += await latencies_s(ingress, 20)
    return sorted(taken)


@contextlib.contextmanager
def attackers(port: int, kinds: list[str]) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.unit.attackers", str(port), *kinds]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"under way\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def p99(ascending: list[float]) -> float:
    return ascending[int(len(ascending) * 0.99)]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The ingress's, for one kind of attack after the other."""
    with ingress_process(ingress_header_timeout_s=2, ingress_body_timeout_s=2) as (_, port):
        yield port


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "honest"])
async def test_a_healthy_client_keeps_its_latency(port, kind):
    """Beside an attack the p99 of another client is not far from what it is beside honest senders of large arrays."""
    ingress = Running(port, None)
    worse: list[float] = []
    while not worse or (min(worse) >= WORSE_THAN_HONEST_MAX and len(worse) < LOOKS):
        honest = await latencies_beside(["honest"] * HONEST, ingress, 0.7)
        attacked = await latencies_beside([kind], ingress, 1.5)
        worse.append(p99(attacked) / p99(honest))
    assert min(worse) < WORSE_THAN_HONEST_MAX


async def test_memory_stays_flat_and_a_healthy_client_is_served():
    """Every kind of attack at once: the process does not grow with it, and every event of another client is accepted
    within the sender's patience.
    """
    bounds = {"ingress_header_timeout_s": 2, "ingress_body_timeout_s": 2, "ingress_inflight_max_bytes": HELD_MAX_BYTES}
    with ingress_process(**bounds) as (process, port):
        ingress, kinds = Running(port, None), list(KINDS)
        memory, attacked = psutil.Process(process.pid), []
        sizes = [memory.memory_info().rss]
        while len(sizes) < 3 or (sizes[-1] - sizes[-2] >= GROWTH_MAX_BYTES and len(sizes) < ROUNDS_MAX):
            attacked += await latencies_beside(kinds, ingress, 4)  # longer than the times for heads and bodies
            sizes.append(memory.memory_info().rss)
        afterwards = await latencies_s(ingress, 100)
    assert sizes[-1] - sizes[-2] < GROWTH_MAX_BYTES, sizes
    assert max(attacked) < SENDERS_PATIENCE_S
    assert max(afterwards) < SENDERS_PATIENCE_S
