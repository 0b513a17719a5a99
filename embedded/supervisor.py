"""Keeps children running: starts them stage by stage, restarts what dies, ends them in order and leaves none behind.

    stage 1: kafka, clickhouse ──ready──> step: topics ──> stage 2: sink, streams, ingress ──ready──> until told to stop
    stop: the other way round, one group after the other, each with its own bound, then SIGKILL

Nothing here knows what the children do; `embedded.stack` says which ones there are.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedded import leftovers
from embedded.console import Output, Say
from embedded.tether import tethered
from runtime.platform.errors import OperatorError

PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 30.0
ATTEMPTS = 3  # of a child that has never been ready
_POLL_S = 0.1
_STILL_AFTER_S = 5.0  # then after twice as long, and so on
_LINE_MAX_BYTES = 1024 * 1024
_LAST_WORDS_S = 1.0  # of a dead child, still in the pipe


async def _at_once() -> bool:
    return True


@dataclass(frozen=True)
class Child:
    """
    One process to keep running.

    `env` is added to this process's own environment. `ready` is asked again and again until it gives True. Children
    of one `group` (default: the name) are stopped together, with `stop_signal`, and killed after `stop_timeout_s`.
    After a death the pause before the next start doubles, until the process has been up for `steady_s`.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], Awaitable[bool]] = _at_once
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    steady_s: float = 30.0
    group: str = ""


#: Children that start side by side, or something to do between two such stages.
Stage = Sequence[Child] | Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Place:
    """Where logs and process ids are kept, and how lines reach the person."""

    logs_dir: Path
    run_dir: Path
    say: Say


class Supervised:
    """A child and its present process."""

    def __init__(self, child: Child, place: Place) -> None:
        self.child = child
        self.became_ready = asyncio.Event()
        self._place = place
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Starts it and returns when it is ready; raises `OperatorError` when it never gets there."""
        self._keeper = asyncio.create_task(self._keep())
        ready = asyncio.create_task(self.became_ready.wait())
        await asyncio.wait({self._keeper, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._keeper.done():
            self._keeper.result()

    async def stop(self) -> None:
        """Ends it: the signal, then SIGKILL for it and all that it started when its time is over."""
        self._stopping = True
        process = self._process
        if process is not None:
            _signal(process, self.child.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self.child.stop_timeout_s)
            except TimeoutError:
                self._place.say(f"{self.child.name} did not stop within {self.child.stop_timeout_s:g} s: killed")
            kill_group(process.pid)
        if self._keeper is not None:
            if process is None:
                self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, OperatorError):
                await self._keeper

    def kill(self) -> None:
        """Ends it at once and for good, with all that it started."""
        self._stopping = True
        if self._process is not None:
            kill_group(self._process.pid)

    async def _keep(self) -> None:
        """Runs the process again whenever it ends, until stopped."""
        pause_s, deaths = PAUSE_MIN_S, 0
        while True:
            began = time.monotonic()
            ending = await self._run_once()
            if self._stopping:
                return
            deaths += 1
            if not self.became_ready.is_set() and deaths == ATTEMPTS:
                raise OperatorError(ending, f"see {self._log_file}")
            if time.monotonic() - began > self.child.steady_s:
                pause_s = PAUSE_MIN_S
            self._place.say(f"{ending}; starting it again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _run_once(self) -> str:
        """One life of the process; gives its obituary."""
        with contextlib.closing(Output(self.child.name, self._log_file, self._place.say)) as output:
            process = await self._spawn()
            helpers = [asyncio.create_task(_pump(process, output)), asyncio.create_task(self._watch_readiness())]
            try:
                status = await process.wait()
                kill_group(process.pid)  # what it started itself ends with it
                await asyncio.wait(helpers[:1], timeout=_LAST_WORDS_S)
            finally:
                for helper in helpers:
                    helper.cancel()
                leftovers.forget(self._place.run_dir, self.child.name)
                self._process = None
        said = f": {output.last_line}" if status > 0 and output.last_line else ""
        return f"{self.child.name} {_ended(status)}{said}"

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = self._process = await asyncio.create_subprocess_exec(
            *tethered(list(self.child.command)),
            env=os.environ | dict(self.child.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops in order
            limit=_LINE_MAX_BYTES,
        )
        leftovers.remember(self._place.run_dir, self.child.name, process.pid)
        return process

    async def _watch_readiness(self) -> None:
        """Says when the process is ready. However long it takes: what it waits for, or recovers, has no bound."""
        began = time.monotonic()
        next_line_s = _STILL_AFTER_S
        while not await self._is_ready():
            waited_s = time.monotonic() - began
            if waited_s > next_line_s:
                self._place.say(f"{self.child.name}: still starting ({waited_s:.0f} s)")
                next_line_s *= 2
            await asyncio.sleep(_POLL_S)
        again = " again" if self.became_ready.is_set() else ""
        self._place.say(f"{self.child.name} is ready{again} ({time.monotonic() - began:.1f} s)")
        self.became_ready.set()

    async def _is_ready(self) -> bool:
        try:
            return await self.child.ready()
        except Exception:  # a check that fails in any way is a child that is not ready
            return False

    @property
    def _log_file(self) -> Path:
        return self._place.logs_dir / f"{self.child.name}.log"


class Supervisor:
    """Runs stages of children until `stop` is called; a second `stop` kills what is still there."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._running: list[Supervised] = []
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End everything in order; called again, at once."""
        if self._stop.is_set():
            self._place.say("killing what is left")
            for one in self._running:
                one.kill()
        self._stop.set()

    def pids(self) -> dict[str, int]:
        """The process ids of the children that run now, by name."""
        return {one.child.name: one.pid for one in self._running if one.pid is not None}

    async def run(self, stages: Iterable[Stage], on_ready: Callable[[], None] = lambda: None) -> None:
        """
        Starts the stages one after the other, keeps their children running until told to stop, ends them in order.

        `on_ready` is called when all are ready. Raises `OperatorError` when a child never becomes ready, or what a step
        raises, after ending the children.
        """
        starting = asyncio.create_task(self._start(stages))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                on_ready()
                await stopped
            self._place.say("stopping")
        finally:
            stopped.cancel()
            starting.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)
            await self._stop_in_order()

    async def _start(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            if callable(stage):
                await stage()
            else:
                supervised = [Supervised(child, self._place) for child in stage]
                self._running.extend(supervised)
                await asyncio.gather(*(one.start() for one in supervised))

    async def _stop_in_order(self) -> None:
        """Group by group, the last one started first."""
        groups: dict[str, list[Supervised]] = {}
        for one in self._running:
            groups.setdefault(one.child.group or one.child.name, []).append(one)
        for members in reversed(groups.values()):
            await asyncio.gather(*(one.stop() for one in members))


async def _pump(process: asyncio.subprocess.Process, output: Output) -> None:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # a line without end
            continue
        if not line:
            return
        output.line(line)


def kill_group(pid: int) -> None:
    """SIGKILL to a child, which leads its own session, and to all that it started there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _ended(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
