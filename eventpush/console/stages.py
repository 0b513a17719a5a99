"""The stages' own metrics and readiness, over HTTP, with rates since the answer before."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

import aiohttp
import msgspec

from eventpush.console.metric_samples import Scrape, parse
from runtime.platform.settings import Settings

STAGES = ("ingress", "streams", "sink")
_TIMEOUT = aiohttp.ClientTimeout(total=2)
_HISTORY = 120  # rates kept for the small graphs
_RATE_OVER_MAX_S = 15.0  # when nobody looked for longer, the next rate begins afresh


class _Readiness(msgspec.Struct):
    failed: dict[str, str] = {}


@dataclass
class Process:
    """One process of a stage: its last two answers, or why there is none."""

    url: str
    before: Scrape | None = None
    now: Scrape | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StageReading:
    """All processes of one stage."""

    stage: str
    processes: list[Process]

    @property
    def pairs(self) -> list[tuple[Scrape, Scrape]]:
        """The last two answers of each process that has given two."""
        return [(p.before, p.now) for p in self.processes if p.before is not None and p.now is not None]

    @property
    def problems(self) -> list[str]:
        """What is wrong with the processes, in words."""
        return [problem for process in self.processes for problem in process.problems]


def urls(settings: Settings) -> dict[str, list[str]]:
    """Return the addresses of each stage's processes: as set, or this machine's ports."""
    found: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for entry in filter(None, settings.console_stages.split(",")):
        stage, _, url = entry.partition("=")
        found[stage].append(url.rstrip("/"))
    if not settings.console_stages:
        for stage in STAGES:
            found[stage].append(f"http://{settings.metrics_host}:{getattr(settings, f'{stage}_metrics_port')}")
    return found


class StageMonitor:
    """Asks every process of every stage, side by side."""

    def __init__(self, settings: Settings) -> None:
        self._processes = {stage: [Process(url) for url in of] for stage, of in urls(settings).items()}
        self._session: aiohttp.ClientSession | None = None
        self.history: dict[str, deque[float]] = {}

    async def read(self) -> dict[str, StageReading]:
        """Return a reading of each stage; processes that do not answer have a problem."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        everyone = [process for of in self._processes.values() for process in of]
        await asyncio.gather(*(_ask(self._session, process) for process in everyone))
        return {stage: StageReading(stage, of) for stage, of in self._processes.items()}

    def remember(self, name: str, rate: float | None) -> list[float]:
        """Add a rate to a graph's history, and return the history."""
        kept = self.history.setdefault(name, deque(maxlen=_HISTORY))
        if rate is not None:
            kept.append(rate)
        return list(kept)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _ask(session: aiohttp.ClientSession, process: Process) -> None:
    try:
        async with session.get(f"{process.url}/metrics") as answer:
            scrape = parse(await answer.text(), time.monotonic())
        async with session.get(f"{process.url}/readyz") as answer:
            failed = msgspec.json.decode(await answer.read(), type=_Readiness).failed
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        process.before = process.now = None
        process.problems = [f"nothing answers at {process.url} ({type(error).__name__})"]
        return
    recent = process.now is not None and scrape.at_s - process.now.at_s < _RATE_OVER_MAX_S
    process.before, process.now = process.now if recent else None, scrape
    process.problems = [f"{name}: {why}" for name, why in failed.items()]
