"""The faults, by name: each does its harm to a running pipeline and leaves it to recover by itself."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from tests.faults.pipeline import Pipeline
from tests.faults.points import POINTS
from tests.faults.processes import Process, until

Fault = Callable[[Pipeline, random.Random], Awaitable[bool]]  # whether any harm was done

_ARMED_S = 15.0


def kill(choose: Callable[[Pipeline], list[Process]]) -> Fault:
    """SIGKILL to one of these processes."""

    async def fault(pipeline: Pipeline, rng: random.Random) -> bool:
        return rng.choice(choose(pipeline)).send_signal(signal.SIGKILL)

    return fault


def at(point: str, harm: str = "kill") -> Fault:
    """`kill`, `stop` or `lose` when the next process of the stage comes to the point."""

    async def fault(pipeline: Pipeline, rng: random.Random) -> bool:
        process = rng.choice(of_stage(pipeline, point.split(maxsplit=1)[0]))
        if "restoring" in point:  # it restores only when it begins
            process.send_signal(signal.SIGKILL)
        return await struck(process, point, harm)

    return fault


def of_stage(pipeline: Pipeline, stage: str) -> list[Process]:
    """The processes that come by a stage's points."""
    return {"ingress": [pipeline.ingress], "streams": pipeline.streams, "sink": [pipeline.sink]}[stage]


async def struck(process: Process, point: str, harm: str = "kill", timeout_s: float = _ARMED_S) -> bool:
    """Arm the process and wait until it has come to the point; False if it has not, and it is disarmed."""

    async def is_struck() -> bool:
        return not process.armed

    process.arm(f"{harm} {point}")
    try:
        await until(is_struck, timeout_s, point, every_s=0.05)
    except TimeoutError:
        process.disarm()
        return False
    return True


def freeze(choose: Callable[[Pipeline], list[Process]], longest_s: float) -> Fault:
    """SIGSTOP for a while, then SIGCONT."""

    async def fault(pipeline: Pipeline, rng: random.Random) -> bool:
        process = rng.choice(choose(pipeline))
        frozen = process.pid
        if not process.send_signal(signal.SIGSTOP):
            return False
        await asyncio.sleep(rng.uniform(0.2, 1) * longest_s)
        return process.pid == frozen and process.send_signal(signal.SIGCONT)

    return fault


async def rebalance(pipeline: Pipeline, _rng: random.Random) -> bool:
    """A stream worker comes, another one goes."""
    await pipeline.add_worker()
    await asyncio.sleep(1)
    await pipeline.remove_worker()
    return True


def term(choose: Callable[[Pipeline], list[Process]]) -> Fault:
    """SIGTERM to one of these processes, as a deployment does."""

    async def fault(pipeline: Pipeline, rng: random.Random) -> bool:
        return rng.choice(choose(pipeline)).send_signal(signal.SIGTERM)

    return fault


async def kill_everything(pipeline: Pipeline, _rng: random.Random) -> bool:
    """The whole machine, as it were."""
    await pipeline.kill()
    await pipeline.again()
    return True


#: What `tests.faults.soak` draws from; the number is how often, beside the others.
FAULTS: dict[str, tuple[Fault, float]] = {
    **{f"kill -9 {point}": (at(point), 1.0) for point in POINTS if "answer" not in point},
    "insert's answer lost": (at("sink when an insert's answer comes", "lose"), 2.0),
    "SIGSTOP a stream worker": (freeze(lambda p: p.streams, 10.0), 1.0),
    "SIGSTOP the sink": (freeze(lambda p: [p.sink], 10.0), 1.0),
    "SIGSTOP ClickHouse": (freeze(lambda p: [p.clickhouse], 8.0), 1.0),
    "SIGSTOP the broker": (freeze(lambda p: p.kafka, 4.0), 1.0),
    "kill -9 ingress": (kill(lambda p: [p.ingress]), 2.0),
    "kill -9 a stream worker": (kill(lambda p: p.streams), 3.0),
    "kill -9 sink": (kill(lambda p: [p.sink]), 2.0),
    "kill -9 ClickHouse": (kill(lambda p: [p.clickhouse]), 2.0),
    "kill -9 the broker": (kill(lambda p: p.kafka), 1.0),
    "SIGTERM a stage": (term(lambda p: [p.ingress, *p.streams, p.sink]), 2.0),
    "a stream worker comes, another one goes": (rebalance, 1.0),
    "kill -9 everything": (kill_everything, 0.2),
}
