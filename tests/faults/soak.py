"""`make soak`: a random, seeded schedule of faults under load for a set time, then the whole history is checked.

    python -m tests.faults.soak --minutes 20 --faults 200 --events 300000 --seed 1 --rate 500

It goes on until there were that many minutes, faults and accepted events. A line for each fault says how far it is; the
report goes to docs/soak.md as well. Exit status 1 if anything was lost, doubled, invented, changed, out of order or
unaccounted, or if the pipeline did not come back.

Everything is kept in one directory, which is named at the start and at the end:

    history/         what was sent, seen and stored, for `python -m tests.faults.checker`; where each group stands
    timeline.jsonl   what was done to whom, and when
    *.log            what each process wrote, over all its lives, with the times at which it started and ended
    kafka, clickhouse  their data; removed when nothing was found
"""

import argparse
import asyncio
import contextlib
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from tests.faults.check_result import KINDS, CheckResult
from tests.faults.faults import FAULTS
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline
from tests.faults.reader import Pulse, Stall

_REPORT = Path("docs/soak.md")
_PAUSE_S = 2.0  # between two faults, on average
_RECOVERS_S = 90.0
_STALL_S = 10.0  # what is longer is listed


class Goal(NamedTuple):
    """What must be reached before it ends."""

    minutes: float
    faults: int
    events: int


class Deed(NamedTuple):
    """One fault; seconds of the monotonic clock."""

    name: str
    began_s: float
    ended_s: float


@dataclass
class Run:
    """What was done, and how long it took to recover."""

    seed: int
    deeds: list[Deed] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)  # by stage and exit status
    minutes: float = 0.0
    stalls: list[Stall] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what did not come back, in words

    @property
    def done(self) -> Counter[str]:
        """How often each fault was done."""
        return Counter(deed.name for deed in self.deeds)

    def around(self, stall: Stall) -> str:
        """The faults that a stall may be of: those of its time, and of a few seconds before it."""
        end_s = stall.began_s + stall.lasted_s
        names = [deed.name for deed in self.deeds if deed.began_s < end_s and deed.ended_s > stall.began_s - 5]
        return ", ".join(names) or "no fault"


async def soak(directory: Path, goal: Goal, seed: int, rate: float) -> tuple[Run, CheckResult]:
    """Run it; the history and all logs stay in the directory."""
    run = Run(seed)
    pipeline = Pipeline(directory)
    began_s = time.monotonic()
    try:
        await pipeline.start()
        async with _pulse(pipeline, run), Load(pipeline.ingress_port, pipeline.sent, rate=rate, seed=seed) as load:
            with _noted(run, "the schedule"):
                await _schedule(pipeline, load, run, goal)
            with _noted(run, "the end"):
                await pipeline.ready()
        run.minutes = (time.monotonic() - began_s) / 60
        _say("at rest now? then everything is compared")
        result = await pipeline.check(keep=True)
        for process in (*pipeline.processes, *pipeline.gone):
            run.deaths.update(f"{process.name.split('-')[0]} {status}" for status in process.statuses)
    finally:
        await pipeline.kill()
    return run, result


@contextlib.contextmanager
def _noted(run: Run, when: str) -> Iterator[None]:
    """Record an exception of the run; its result is still wanted."""
    try:
        yield
    except Exception as error:
        run.broken.append(f"{when}: {error!r}")
        _say(f"BROKEN {run.broken[-1]}")


async def _schedule(pipeline: Pipeline, load: Load, run: Run, goal: Goal) -> None:
    """Fault after fault; after every other one everything may recover, the others come on top of each other."""
    rng = random.Random(run.seed)
    names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
    began_s = time.monotonic()
    while time.monotonic() < began_s + goal.minutes * 60 or len(run.deeds) < goal.faults or load.accepted < goal.events:
        name = rng.choices(names, weights)[0]
        deed_s = time.monotonic()
        with _noted(run, name):
            if await FAULTS[name][0](pipeline, rng):
                run.deeds.append(Deed(name, deed_s, time.monotonic()))
                _keep(pipeline.directory, run.deeds[-1])
                _say(_progress(run, load, goal, time.monotonic() - began_s))
        if rng.random() < 0.5:
            await asyncio.sleep(rng.expovariate(1 / _PAUSE_S))
        else:
            with _noted(run, f"after {name}"):
                run.recovered_s.append(await pipeline.ready(_RECOVERS_S))


def _progress(run: Run, load: Load, goal: Goal, elapsed_s: float) -> str:
    return (
        f"{elapsed_s / 60:5.1f} of {goal.minutes:g} min  {len(run.deeds):4} of {goal.faults} faults  "
        f"{load.accepted:7} of {goal.events} events  {run.deeds[-1].name}"
    )


def _keep(directory: Path, deed: Deed) -> None:
    summary = deed._asdict() | {"at": datetime.now(UTC).isoformat()}
    with (directory / "timeline.jsonl").open("ab") as timeline:
        timeline.write(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))


@contextlib.asynccontextmanager
async def _pulse(pipeline: Pipeline, run: Run) -> AsyncIterator[None]:
    pulse = Pulse(pipeline.bootstrap)
    task = asyncio.create_task(pulse.run())
    try:
        yield
    finally:
        run.stalls = pulse.stalls
        if task.done():
            run.broken.append(f"the reader that measures stalls ended: {task.exception()!r}")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def figures(run: Run, result: CheckResult) -> dict[str, float]:
    """The figures of the report, in order."""
    return {
        "faults": len(run.deeds),
        "of these kill -9": sum(count for name, count in run.done.items() if name.startswith("kill -9")),
        "events accepted": result.events,
        "attempts to deliver": result.attempts,
        "attempts answered 200": result.acknowledged,
        **{kind.replace("_", " "): result.count(kind) for kind in KINDS},
        "longest stall, seconds": round(max((stall.lasted_s for stall in run.stalls), default=0.0), 1),
        "stalls above 10 s": sum(stall.lasted_s > _STALL_S for stall in run.stalls),
        "slowest return of everything to ready, seconds": round(max(run.recovered_s, default=0.0), 1),
        "did not come back": len(run.broken),
        "minutes": round(run.minutes, 1),
        "seed": run.seed,
    }


def report(run: Run, result: CheckResult) -> str:
    """The report, as Markdown."""
    lines = ["# Soak: the latest run", "", f"`make soak`, {datetime.now(UTC):%Y-%m-%d}, {platform.platform()}.", ""]
    lines += ["| what | number |", "| --- | ---: |"]
    lines += [f"| {what} | {number} |" for what, number in figures(run, result).items()]
    lines += ["", _LEGEND, "", "| fault | times |", "| --- | ---: |"]
    lines += [f"| {name} | {count} |" for name, count in sorted(run.done.items())]
    lines += ["", "How processes ended (exit status, or the negated signal number):", ""]
    lines += [f"- {ended}: {count}" for ended, count in sorted(run.deaths.items())]
    long = [stall for stall in run.stalls if stall.lasted_s > _STALL_S]
    if long:
        lines += ["", "The stalls above 10 s, and the faults during them:", ""]
        lines += [f"- {stall.lasted_s:.1f} s: {run.around(stall)}" for stall in long]
    lines += ["", "What did not come back:", "", *(f"- {what}" for what in run.broken)] if run.broken else []
    return "\n".join(lines) + "\n"


_LEGEND = """A stall is a period in which no event arrived on `telematics.events.v1`, whatever the cause: faults
overlap, and some take several seconds by themselves (a frozen broker, everything killed)."""


def as_json(run: Run, result: CheckResult, directory: Path) -> str:
    """All of it for programs."""
    summary = {
        "figures": figures(run, result),
        "faults": run.done,
        "deaths": run.deaths,
        "stalls": [stall._asdict() | {"around": run.around(stall)} for stall in run.stalls],
        "broken": run.broken,
        "result": result.as_dict(),
        "directory": str(directory),
    }
    return orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is a program


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="at least so long")
    parser.add_argument("--faults", type=int, default=200, help="at least so many")
    parser.add_argument("--events", type=int, default=300_000, help="at least so many are accepted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--directory", type=Path, help="where everything is kept [default: a new temporary one]")
    parser.add_argument("--report", type=Path, default=_REPORT, help="a file for the report [default: %(default)s]")
    parser.add_argument("--json", action="store_true", help="print it as JSON; progress goes to standard error")
    given = parser.parse_args()
    directory = given.directory or Path(tempfile.mkdtemp(prefix="eventpush-soak-"))
    _say(f"logs and history: {directory}")
    run, result = asyncio.run(soak(directory, Goal(given.minutes, given.faults, given.events), given.seed, given.rate))
    text = report(run, result)
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(text)
    print(as_json(run, result, directory) if given.json else text)  # noqa: T201
    _say(f"{result}\nlogs and history: {directory}")
    if result.faults or run.broken:
        return 1
    for data in ("kafka", "clickhouse"):
        shutil.rmtree(directory / data, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
