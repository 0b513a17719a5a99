"""Supervise child processes: start them stage by stage, restart those that die, stop them in order.

    stage 1: kafka, clickhouse ──ready──> step: topics ──> stage 2: sink, streams, ingress ──ready──> until `stop`
                                                                              extras: console ──┘
    stop: in reverse order, group by group, each with its own timeout, then SIGKILL

This module knows nothing about the children; `embedded.stack` defines them.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedded import orphans
from embedded.parent_death import with_parent_death_signal
from embedded.terminal_output import ChildOutput, LineWriter
from runtime.platform.backoff import Backoff
from runtime.platform.errors import OperatorError

RESTART_BACKOFF_MIN_S = 0.2
RESTART_BACKOFF_MAX_S = 30.0
START_ATTEMPTS_MAX = 3  # for a child that has never been ready
_POLL_S = 0.1
_STILL_STARTING_AFTER_S = 5.0  # the interval between such lines doubles
_LINE_MAX_BYTES = 1024 * 1024
_DRAIN_TIMEOUT_S = 1.0  # to read what a dead child left in its pipe


async def _always_ready() -> bool:
    return True


@dataclass(frozen=True)
class ChildSpec:
    """A process to keep running.

    `env` extends this process's environment. `ready` is polled until it returns True. Children of one `group`
    (default: the name) are stopped together with `stop_signal`, and killed after `stop_timeout_s`. The delay before
    each restart doubles; it is reset once the process has run for `steady_s`.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], Awaitable[bool]] = _always_ready
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    steady_s: float = 30.0
    group: str = ""


#: Children that start concurrently, or a step to run between two stages.
Stage = Sequence[ChildSpec] | Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class SupervisorContext:
    """Directories for logs and process ids, and the writer of lines for the operator."""

    logs_dir: Path
    run_dir: Path
    write_line: LineWriter


class ChildProcess:
    """A child with its current process, restarted whenever it ends."""

    def __init__(self, child: ChildSpec, context: SupervisorContext) -> None:
        self.child = child
        self.became_ready = asyncio.Event()
        self._context = context
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._restart_task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while no process runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the child and return when it is ready; raise `OperatorError` if it never becomes ready."""
        self._restart_task = asyncio.create_task(self._run_until_stopped())
        ready = asyncio.create_task(self.became_ready.wait())
        await asyncio.wait({self._restart_task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._restart_task.done():
            self._restart_task.result()

    async def stop(self) -> None:
        """Send the stop signal; after the timeout kill the child and all its descendants."""
        self._stopping = True
        process = self._process
        if process is not None:
            _signal(process, self.child.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self.child.stop_timeout_s)
            except TimeoutError:
                self._context.write_line(
                    f"{self.child.name} did not stop within {self.child.stop_timeout_s:g} s: killed"
                )
            kill_group(process.pid)
        if self._restart_task is not None:
            if process is None:
                self._restart_task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OperatorError):
                await self._restart_task

    def kill(self) -> None:
        """Kill the child and all its descendants; it is not restarted."""
        self._stopping = True
        if self._process is not None:
            kill_group(self._process.pid)

    async def _run_until_stopped(self) -> None:
        """Restart the process whenever it ends, until stopped."""
        # One child, one machine: jitter would only make the delays harder to read.
        backoff, deaths = Backoff(RESTART_BACKOFF_MIN_S, RESTART_BACKOFF_MAX_S, jitter=0), 0
        while True:
            began = time.monotonic()
            exit_summary = await self._run_once()
            if self._stopping:
                return
            deaths += 1
            if not self.became_ready.is_set() and deaths == START_ATTEMPTS_MAX:
                raise OperatorError(exit_summary, f"see {self._log_file}")
            if time.monotonic() - began > self.child.steady_s:
                backoff.reset()
            delay_s = backoff.next_s()
            self._context.write_line(f"{exit_summary}; restarting in {delay_s:g} s")
            await asyncio.sleep(delay_s)

    async def _run_once(self) -> str:
        """Run the process once and return its exit summary."""
        with contextlib.closing(ChildOutput(self.child.name, self._log_file, self._context.write_line)) as output:
            process = await self._spawn()
            helpers = [asyncio.create_task(_pump(process, output)), asyncio.create_task(self._watch_readiness())]
            try:
                status = await process.wait()
                kill_group(process.pid)  # its descendants end with it
                await asyncio.wait(helpers[:1], timeout=_DRAIN_TIMEOUT_S)
            finally:
                for helper in helpers:
                    helper.cancel()
                orphans.remove_record(self._context.run_dir, self.child.name)
                self._process = None
        last_line = f": {output.last_line}" if status > 0 and output.last_line else ""
        return f"{self.child.name} {_describe_status(status)}{last_line}"

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = self._process = await asyncio.create_subprocess_exec(
            *with_parent_death_signal(list(self.child.command)),
            env=os.environ | dict(self.child.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # only the supervisor receives Ctrl-C, and stops the children in order
            limit=_LINE_MAX_BYTES,
        )
        orphans.record_child(self._context.run_dir, self.child.name, process.pid)
        return process

    async def _watch_readiness(self) -> None:
        """Report when the process is ready. There is no timeout: recovery may take arbitrarily long."""
        began = time.monotonic()
        next_line_s = _STILL_STARTING_AFTER_S
        while not await self._is_ready():
            waited_s = time.monotonic() - began
            if waited_s > next_line_s:
                self._context.write_line(f"{self.child.name}: still starting ({waited_s:.0f} s)")
                next_line_s *= 2
            await asyncio.sleep(_POLL_S)
        again = " again" if self.became_ready.is_set() else ""
        self._context.write_line(f"{self.child.name} is ready{again} ({time.monotonic() - began:.1f} s)")
        self.became_ready.set()

    async def _is_ready(self) -> bool:
        try:
            return await self.child.ready()
        except Exception:  # a check that fails for any reason means that the child is not ready
            return False

    @property
    def _log_file(self) -> Path:
        return self._context.logs_dir / f"{self.child.name}.log"


class Supervisor:
    """Run stages of children until `stop` is called; a second `stop` kills the remaining ones."""

    def __init__(self, context: SupervisorContext) -> None:
        self._context = context
        self._running: list[ChildProcess] = []
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop all children in order; when called again, kill them at once."""
        if self._stop.is_set():
            self._context.write_line("killing the remaining processes")
            for one in self._running:
                one.kill()
        self._stop.set()

    def pids(self) -> dict[str, int]:
        """Return the process ids of the running children, by name."""
        return {one.child.name: one.pid for one in self._running if one.pid is not None}

    async def run(
        self,
        stages: Iterable[Stage],
        on_ready: Callable[[], None] = lambda: None,
        extras: Sequence[ChildSpec] = (),
    ) -> None:
        """Start the stages in order, keep their children running until `stop`, then stop them in reverse order.

        Call `on_ready` when all are ready, and start the extras after that; one that cannot start is reported, and
        the others go on. Raise `OperatorError` if a child of a stage never becomes ready, and whatever a step raises,
        after stopping all children.
        """
        extra_tasks: list[asyncio.Task[None]] = []
        starting = asyncio.create_task(self._start(stages))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                on_ready()
                extra_tasks += [asyncio.create_task(self._start_extra(child)) for child in extras]
                await stopped
            self._context.write_line("stopping")
        finally:
            begun = [starting, stopped, *extra_tasks]
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)
            await self._stop_in_order()

    async def _start(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            if callable(stage):
                await stage()
            else:
                supervised = [ChildProcess(child, self._context) for child in stage]
                self._running.extend(supervised)
                await asyncio.gather(*(one.start() for one in supervised))

    async def _start_extra(self, child: ChildSpec) -> None:
        extra = ChildProcess(child, self._context)
        self._running.append(extra)
        try:
            await extra.start()
        except OperatorError as problem:
            self._context.write_line(f"{child.name} does not run: {problem}")

    async def _stop_in_order(self) -> None:
        """Stop group by group, the last one started first."""
        groups: dict[str, list[ChildProcess]] = {}
        for one in self._running:
            groups.setdefault(one.child.group or one.child.name, []).append(one)
        for members in reversed(groups.values()):
            await asyncio.gather(*(one.stop() for one in members))


async def _pump(process: asyncio.subprocess.Process, output: ChildOutput) -> None:
    assert process.stdout is not None  # noqa: S101 - stdout is a pipe
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # a line longer than the limit
            continue
        if not line:
            return
        output.line(line)


def kill_group(pid: int) -> None:
    """Kill a child, which leads its own session, and its descendants in that session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _describe_status(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
