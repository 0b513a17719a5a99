"""0.1.0 and this release on the same topics and tables under load, forward and back, in the order of docs/upgrading.md.

0.1.0 runs from its commit, with the libraries that are installed: its pins are among those of this release.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from eventpush.console.metric_samples import parse
from schemas import topics
from tests.faults.faults import struck
from tests.faults.load import Load
from tests.faults.pipeline import Pipeline
from tests.faults.processes import Process, free_port, until
from tests.faults.reader import rows
from tests.stack import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

_FORMER = "76d5dbbb1380ef59503c587c37aec2d5e594bd81"  # 0.1.0
_FORMER_SCHEMA = 1  # its newest migration
_PACKAGES = ("runtime", "schemas", "ingress", "streams", "sinks", "embedded", "eventpush")
# An event whose type is not in its normal form has another identity since: see docs/upgrading.md.
_TYPES = ("overspeed", "fuel_fill", "fuel_drain", "geofence_enter", "tampering", "power_cut", "sos", "harsh_brake")
_WORKED = {
    "ingress": "eventpush_ingress_events_total",
    "streams": "eventpush_streams_events_total",
    "sink": "eventpush_sink_rows_total",
}
_STEP_S = 60.0


class TwoReleases(Pipeline):
    """A pipeline of 0.1.0, whose stages can be replaced by those of this release, and back."""

    def __init__(self, directory: Path, former_code: Path) -> None:
        # Without `-P` the working directory's packages would come first.
        self._former = [sys.executable, "-P", "-m", "eventpush"]
        self._former_path = {"PYTHONPATH": str(former_code)}
        # Completeness lags behind by the time that a body may take.
        super().__init__(directory, environ={"EVENTPUSH_INGRESS_BODY_TIMEOUT_S": "1"})
        self._ports = {self.ingress.name: self.ingress_port}
        self._living = [self.ingress, *self.streams, self.sink]

    def _stage(self, stage: str) -> Process:
        return self._stage_of(self._former, stage, **self._former_path)

    async def start(self) -> None:
        """Start everything of 0.1.0."""
        await self._start_kafka()
        self.clickhouse.start()
        await self.run(self._former, "topics", **self._former_path)
        for process in self._living:
            process.start()
        await self.ready()

    def begin(self, stage: str, *, former: bool) -> Process:
        """Start one more process of a stage, of 0.1.0 or of this release."""
        port = free_port()
        listening = {"EVENTPUSH_INGRESS_PORT": str(port)} if stage == "ingress" else {}
        if former:
            process = self._stage_of(self._former, stage, **self._former_path, **listening)
        else:
            program = [sys.executable, "-m", "tests.faults.points"]
            process = self._stage_of(program, stage, FAULT_CLOCK=str(self.clock.file), **listening)
        self._ports[process.name] = port
        self._living.append(process)
        process.start()
        return process

    async def end(self, *processes: Process) -> None:
        """Stop processes with SIGTERM, which each of them survives in good order."""
        statuses = await asyncio.gather(*(process.stop() for process in processes))
        assert statuses == [0] * len(processes)
        self._living = [process for process in self._living if process not in processes]

    async def kill_for_good(self, process: Process) -> None:
        """Kill a process with -9, and do not start it again."""
        await process.stop(signal.SIGKILL)
        self._living.remove(process)

    @property
    def processes(self) -> list[Process]:
        return [*self.kafka, self.clickhouse, *self._living]

    def operators_ports(self) -> list[int]:
        return [self.port_of(process) for process in self._living]

    async def run(self, program: Sequence[str], *arguments: str, **environ: str) -> None:
        """Run a command to its end."""
        command = await asyncio.create_subprocess_exec(
            *program, *arguments, env=os.environ | self.environ | environ,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await command.communicate()
        assert command.returncode == 0, said.decode()

    async def all_work(self, *processes: Process) -> None:
        """Wait until each of them has done more than it has done by now."""
        before = {process: await self._done(process) for process in processes}

        async def have_worked() -> bool:
            return all([await self._done(process) > done for process, done in before.items()])

        names = ", ".join(process.name for process in processes)
        await until(have_worked, _STEP_S, f"work done by {names}; see the logs in {self.directory}")

    async def _done(self, process: Process) -> float:
        """How many events it has accepted or processed, or rows it has stored; 0 if it does not answer."""
        name = _WORKED[process.name.partition("-")[0]]
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
                session.get(f"http://127.0.0.1:{self.port_of(process)}/metrics") as answer,
            ):
                return parse(await answer.text(), 0.0).total(name)
        except (OSError, aiohttp.ClientError, TimeoutError):
            return 0.0

    @contextlib.asynccontextmanager
    async def load_on(self, ingress: Process, seed: int) -> AsyncIterator[Load]:
        """Load on one ingress; what it has sent gets its 200 before the end."""
        port = self._ports[ingress.name]
        async with Load(port, self.sent, rate=150, devices=100, seed=seed, types=_TYPES) as load:
            yield load

    async def forget_migrations(self) -> None:
        """Have the sink of 0.1.0 accept the schema."""
        statement = f"ALTER TABLE telematics.schema_migrations DELETE WHERE version > {_FORMER_SCHEMA}"
        user, password = self.settings.clickhouse_user, self.settings.clickhouse_password.get_secret_value()
        async with (
            aiohttp.ClientSession(headers={"X-ClickHouse-User": user, "X-ClickHouse-Key": password}) as session,
            session.post(self.settings.clickhouse_url, data=statement, params={"mutations_sync": "1"}) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def complete_through(self, moment_us: int) -> None:
        """Wait until everything that was accepted before is stored, as the sink of this release proves."""

        async def is_complete() -> bool:
            (found,) = await rows(
                self.settings,
                "SELECT toUnixTimestamp64Micro(min(complete_through)) AS us FROM telematics.completeness",
            )
            return int(str(found["us"])) > moment_us

        await until(is_complete, _STEP_S, "everything stored that new workers have written")


@pytest.fixture(scope="module")
def former_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of 0.1.0."""
    directory = tmp_path_factory.mktemp("0.1.0")
    archive = directory / "packages.tar"
    command = ["git", "-C", str(ROOT), "archive", f"--output={archive}", _FORMER, *_PACKAGES]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or error
        pytest.skip(f"no commit {_FORMER[:7]} (0.1.0) here; clone the repository with its whole history ({why})")
    with tarfile.open(archive) as packages:
        packages.extractall(directory, filter="data")
    return directory


@pytest_asyncio.fixture(loop_scope="session")
async def releases(tmp_path: Path, former_code: Path) -> AsyncIterator[TwoReleases]:
    """The pipeline of 0.1.0, running; whatever runs in the end is killed."""
    pipeline = TwoReleases(tmp_path, former_code)
    try:
        await pipeline.start()
        yield pipeline
    finally:
        await pipeline.kill()


async def test_upgrade_and_rollback_under_load(releases: TwoReleases):
    """Forward: topics, migrations, sinks beside each other, all workers, ingresses beside each other. Back: ingresses,
    all workers, then the sinks once everything of the new workers is stored. Workers and sinks of both releases are
    killed on the way. Nothing is lost or doubled, and neither sink refuses what the other release wrote.
    """
    ingress = releases.ingress
    async with releases.load_on(ingress, 1):
        await releases.all_work(ingress, *releases.streams, releases.sink)
        await _run_this(releases, "topics")
        await _run_this(releases, "migrate")
        sink = await _replace_sink(releases)
        workers = await _replace_workers(releases)
        new_ingress = await _join_ingress(releases, ingress, former=False)
    await releases.end(ingress)
    async with releases.load_on(new_ingress, 3):
        await releases.all_work(new_ingress, *workers, sink)
        ingress = await _join_ingress(releases, new_ingress, former=True)
    await releases.end(new_ingress)
    async with releases.load_on(ingress, 5):
        await _return_workers(releases, workers)
        await _return_sink(releases, sink)
    result = await releases.check()
    assert not result.faults, f"{result}\nhistory and logs: {releases.directory}"
    letters = [seen.value for seen in releases.reader.seen if seen.topic == topics.DEAD_LETTER]
    assert [letter for letter in letters if '"stage":"sink"' in letter] == []


async def _run_this(releases: TwoReleases, command: str) -> None:
    await releases.run([sys.executable, "-m", "eventpush"], command)


async def _join_ingress(releases: TwoReleases, ingress: Process, *, former: bool) -> Process:
    """Start the other release's, and send to both."""
    other = releases.begin("ingress", former=former)
    await releases.ready()
    async with releases.load_on(other, 2 + 2 * former):
        await releases.all_work(ingress, other)
    return other


async def _replace_sink(releases: TwoReleases) -> Process:
    """Both sinks run and both are killed, the new one with an insert that it has not committed. The old one would not
    start again: it refuses the newer schema.
    """
    former, sink = releases.sink, releases.begin("sink", former=False)
    await releases.ready()
    await releases.all_work(former, sink)
    assert await struck(sink, "sink between insert and commit")
    await releases.kill_for_good(former)
    await releases.ready()
    await releases.all_work(sink)
    return sink


async def _replace_workers(releases: TwoReleases) -> list[Process]:
    """All old ones end, one of them killed, before the first new one starts."""
    killed, stopped = releases.streams
    await asyncio.gather(releases.kill_for_good(killed), releases.end(stopped))
    workers = [releases.begin("streams", former=False) for _ in range(2)]
    await releases.ready()
    await releases.all_work(*workers)
    return workers


async def _return_workers(releases: TwoReleases, workers: list[Process]) -> None:
    """One is killed with a transaction open: the others have taken over when they are ready. Then all end."""
    assert await struck(workers[0], "streams between changelog and commit")
    await releases.ready()
    await releases.end(*workers)
    ended_us = time.time_ns() // 1_000
    returned = [releases.begin("streams", former=True) for _ in range(2)]
    await releases.ready()
    await releases.all_work(*returned)
    await releases.complete_through(ended_us)


async def _return_sink(releases: TwoReleases, sink: Process) -> None:
    """The new one is killed, starts again, and ends before the old one starts, which knows one step of the schema."""
    assert await struck(sink, "sink between insert and commit")
    await releases.ready()
    await releases.end(sink)
    await releases.forget_migrations()
    returned = releases.begin("sink", former=True)
    await releases.ready()
    await releases.all_work(returned)
