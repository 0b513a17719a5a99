"""`make soak`: a random, seeded schedule of faults under load for a set time, then the whole history is checked.

    python -m tests.faults.soak --minutes 20 --faults 200 --events 300000 --seed 1 --rate 500

It goes on until there were that many minutes, faults and events. Prints what was done and what came of it, and writes
it to docs/soak.md. Exit status 1 if anything was lost, doubled, invented, changed or out of order.
"""

import argparse
import asyncio
import contextlib
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.faults.faults import FAULTS
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline
from tests.faults.reader import Pulse
from tests.faults.verdict import KINDS, Verdict

_REPORT = Path("docs/soak.md")
_PAUSE_S = 2.0  # between two faults, on average
_RECOVERS_S = 60.0
_SLACK = 1.25  # attempts for one event: repeats, conflicts, retries


@dataclass
class Run:
    """What was done, and how long it took to recover."""

    seed: int
    done: Counter[str] = field(default_factory=Counter)
    recovered_s: list[float] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)  # by stage and exit status
    minutes: float = 0.0
    attempts_per_s: float = 0.0
    stalls: list[float] = field(default_factory=list)


class Goal(NamedTuple):
    """What must be reached before it ends."""

    minutes: float
    faults: int
    events: int


async def soak(directory: Path, goal: Goal, seed: int, rate: float) -> tuple[Run, Verdict]:
    """Run it; the history and all logs stay in the directory."""
    run, rng = Run(seed), random.Random(seed)
    pipeline = Pipeline(directory)
    began_s = time.monotonic()
    try:
        await pipeline.start()
        async with _pulse(pipeline, run), Load(pipeline.ingress_port, pipeline.sent, rate=rate, seed=seed):
            await _schedule(pipeline, run, rng, goal)
            await pipeline.ready()
        run.minutes = (time.monotonic() - began_s) / 60
        run.attempts_per_s = len(pipeline.sent) / (time.monotonic() - began_s)
        verdict = await pipeline.verdict()
        for process in pipeline.processes:
            run.deaths.update(f"{process.name.split('-')[0]} {status}" for status in process.statuses)
    finally:
        await pipeline.kill()
    return run, verdict


async def _schedule(pipeline: Pipeline, run: Run, rng: random.Random, goal: Goal) -> None:
    """Fault after fault; after every other one everything may recover, the others come on top of each other."""
    names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
    until_s = time.monotonic() + goal.minutes * 60
    while time.monotonic() < until_s or run.done.total() < goal.faults or len(pipeline.sent) < goal.events * _SLACK:
        name = rng.choices(names, weights)[0]
        if await FAULTS[name][0](pipeline, rng):
            run.done[name] += 1
            _say(f"{run.done.total():4} {name}; {len(pipeline.sent)} attempts")
        if rng.random() < 0.5:
            await asyncio.sleep(rng.expovariate(1 / _PAUSE_S))
        else:
            with contextlib.suppress(TimeoutError):
                run.recovered_s.append(await pipeline.ready(_RECOVERS_S))


@contextlib.asynccontextmanager
async def _pulse(pipeline: Pipeline, run: Run) -> AsyncIterator[None]:
    pulse = Pulse(pipeline.bootstrap)
    task = asyncio.create_task(pulse.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        run.stalls = pulse.stalls


def report(run: Run, verdict: Verdict) -> str:
    """The report, as Markdown."""
    faults = run.done.total()
    rows = [
        ("faults", faults),
        ("of these kill -9", sum(count for name, count in run.done.items() if name.startswith("kill -9"))),
        ("events accepted", verdict.events),
        ("attempts to deliver", verdict.attempts),
        ("attempts answered 200", verdict.acknowledged),
        *((kind.replace("_", " "), verdict.count(kind)) for kind in KINDS),
        ("longest stall, seconds", round(max(run.stalls, default=0.0), 1)),
        ("stalls above 10 s", sum(stall > 10 for stall in run.stalls)),
        ("slowest return of everything to ready, seconds", round(max(run.recovered_s, default=0.0), 1)),
        ("minutes", round(run.minutes, 1)),
        ("seed", run.seed),
    ]
    lines = ["# Soak: the latest run", "", f"`make soak`, {datetime.now(UTC):%Y-%m-%d}, {platform.platform()}.", ""]
    lines += ["| what | number |", "| --- | ---: |", *(f"| {what} | {number} |" for what, number in rows)]
    lines += ["", _LEGEND, "", "| fault | times |", "| --- | ---: |"]
    lines += [f"| {name} | {count} |" for name, count in sorted(run.done.items())]
    lines += ["", "How processes ended (exit status, or the signal's number negated):", ""]
    lines += [f"- {ended}: {count}" for ended, count in sorted(run.deaths.items())]
    return "\n".join(lines) + "\n"


_LEGEND = """A stall is a time in which no event came on `telematics.events.v1`, whatever the cause: faults come on top
of each other, and some are several seconds long by themselves (a frozen broker, everything killed)."""


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is a program


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--faults", type=int, default=200, help="at least so many")
    parser.add_argument("--events", type=int, default=300_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--directory", type=Path, help="where everything lives [default: a new temporary one]")
    parser.add_argument("--report", type=Path, default=_REPORT)
    given = parser.parse_args()
    directory = given.directory or Path(tempfile.mkdtemp(prefix="eventpush-soak-"))
    _say(f"logs and history: {directory}")
    run, verdict = asyncio.run(soak(directory, Goal(given.minutes, given.faults, given.events), given.seed, given.rate))
    text = report(run, verdict)
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(text)
    _say(text)
    _say(str(verdict))
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
