"""The supervisor, with children that are a few lines of Python."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded import orphans
from embedded.supervisor import START_ATTEMPTS_MAX, ChildProcess, ChildSpec, Supervisor, SupervisorContext
from runtime.platform.errors import OperatorError

DEADLINE_S = 20.0
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


class Lines(list[str]):
    """The lines written so far, with a way to wait for one."""

    async def wait_for(self, part: str, count: int = 1) -> None:
        await until(lambda: sum(part in line for line in self) >= count, f"{part!r} in {self}")


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        await asyncio.sleep(0.02)


def child(name: str, code: str, **options: Any) -> ChildSpec:
    return ChildSpec(name, [sys.executable, "-ISc", code], **options)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def context(tmp_path: Path, lines: Lines) -> SupervisorContext:
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    return SupervisorContext(tmp_path / "logs", tmp_path / "run", lines.append)


async def test_stages_start_in_order_and_stop_the_other_way_round(context: SupervisorContext, lines: Lines) -> None:
    """A stage begins when the one before is ready, and a step runs between; the last started is the first stopped."""
    order: list[str] = []
    files = {name: context.logs_dir / f"{name}.up" for name in ("first", "second", "third")}

    def one(name: str, *others: Path) -> ChildSpec:
        code = (
            f"import pathlib, signal, sys, time; assert all(pathlib.Path(o).exists() for o in {[*map(str, others)]});"
        )
        code += "signal.signal(signal.SIGTERM, lambda *_: sys.exit());"
        code += f"pathlib.Path({str(files[name])!r}).touch(); time.sleep(600)"

        async def ready() -> bool:
            return files[name].exists()

        return child(name, code, ready=ready)

    async def step() -> None:
        order.append("step")
        assert files["first"].exists()

    sup = Supervisor(context)
    ended: list[str] = []
    original = orphans.remove_record

    def remove_record(run: Path, name: str) -> None:
        ended.append(name)
        original(run, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orphans, "remove_record", remove_record)
        stages: list[Any] = [[one("first")], step, [one("second", files["first"])], [one("third", files["second"])]]
        await sup.run(stages, on_ready=sup.stop)
    assert order == ["step"]
    assert ended == ["third", "second", "first"]


async def test_dead_child_comes_back(context: SupervisorContext, lines: Lines) -> None:
    """A child that is killed is restarted, and the operator sees both."""
    sup = Supervisor(context)
    task = asyncio.create_task(sup.run([[child("worker", SLEEPER)]]))
    await lines.wait_for("worker is ready")
    first = sup.pids()["worker"]
    os.kill(first, signal.SIGKILL)
    await lines.wait_for("worker was killed by SIGKILL; restarting in 0.2 s")
    await lines.wait_for("worker is ready again")
    assert sup.pids()["worker"] != first
    sup.stop()
    await task
    assert sup.pids() == {}


async def test_pause_between_restarts_grows(context: SupervisorContext, lines: Lines) -> None:
    """A child that keeps dying after it was ready once is restarted after a delay that doubles."""
    sup = Supervisor(context)
    task = asyncio.create_task(sup.run([[child("looper", "import sys; sys.exit(3)")]]))
    for pause in ("0.2", "0.4", "0.8"):
        await lines.wait_for(f"looper ended with status 3; restarting in {pause} s")
    sup.stop()
    await task


async def test_pause_is_short_again_after_a_steady_time(context: SupervisorContext, lines: Lines) -> None:
    """After a child has run for its steady time, the next restart has the shortest delay."""
    sup = Supervisor(context)
    code = "import sys, time; time.sleep(0.3); sys.exit(3)"
    task = asyncio.create_task(sup.run([[child("steady", code, steady_s=0.1)]]))
    await lines.wait_for("restarting in 0.2 s", count=2)
    sup.stop()
    await task
    assert not any("0.4 s" in line for line in lines)


async def test_child_that_never_becomes_ready_ends_everything(context: SupervisorContext, lines: Lines) -> None:
    """Dying repeatedly before being ready is an error: its last line in one message, the others are stopped."""
    sup = Supervisor(context)

    async def never() -> bool:
        return False

    broken = child("broken", "import sys; sys.exit('no room for me: make some')", ready=never)
    pids: dict[str, int] = {}
    with pytest.raises(
        OperatorError, match=r"broken ended with status 1: no room for me: make some: see .*broken\.log"
    ):
        await sup.run([[child("fine", SLEEPER)], lambda: _note(pids, sup), [broken]])
    assert sum("broken ended" in line for line in lines) == START_ATTEMPTS_MAX - 1
    assert not alive(pids["fine"])


async def _note(pids: dict[str, int], sup: Supervisor) -> None:
    pids.update(sup.pids())


async def test_child_that_ignores_sigterm_is_killed(context: SupervisorContext, lines: Lines) -> None:
    """The time to stop is bounded; then the child and its descendants are killed."""
    grandchild_file = context.logs_dir / "grandchild"
    code = (
        "import pathlib, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-ISc', 'import time; time.sleep(600)']);"
        f"pathlib.Path({str(grandchild_file)!r}).write_text(str(p.pid)); time.sleep(600)"
    )

    async def ready() -> bool:
        return grandchild_file.exists() and grandchild_file.read_text() != ""

    sup = Supervisor(context)
    pids: dict[str, int] = {}
    stages: list[Any] = [[child("deaf", code, ready=ready, stop_timeout_s=0.3)], lambda: _note(pids, sup)]
    await sup.run(stages, on_ready=sup.stop)
    assert any("deaf did not stop within 0.3 s: killed" in line for line in lines)
    grandchild = int(grandchild_file.read_text())
    await until(lambda: not alive(pids["deaf"]) and not alive(grandchild))


async def test_second_stop_kills_at_once(context: SupervisorContext, lines: Lines) -> None:
    """A second stop does not wait for any timeout."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    sup = Supervisor(context)
    log = context.logs_dir / "deaf.log"

    async def ready() -> bool:
        return log.exists() and b"up" in log.read_bytes()

    task = asyncio.create_task(sup.run([[child("deaf", code, ready=ready, stop_timeout_s=600)]]))
    await lines.wait_for("deaf is ready")
    sup.stop()
    await lines.wait_for("stopping")
    sup.stop()
    await asyncio.wait_for(task, DEADLINE_S)


async def test_child_killed_by_stop_is_not_restarted(context: SupervisorContext, lines: Lines) -> None:
    """A child that a second stop kills is not restarted, and no further line mentions it."""
    one = ChildProcess(child("one", SLEEPER), context)
    await one.start()
    one.kill()
    await until(lambda: one.pid is None)
    await one.stop()
    assert not any("restarting" in line for line in lines)


async def test_stop_during_the_start(context: SupervisorContext, lines: Lines) -> None:
    """The supervisor stops even while a child is starting or waiting to be restarted."""

    async def never() -> bool:
        return False

    sup = Supervisor(context)
    slow = child("slow", SLEEPER, ready=never)
    task = asyncio.create_task(sup.run([[slow], [child("later", SLEEPER)]]))
    await until(lambda: "slow" in sup.pids())
    pid = sup.pids()["slow"]
    sup.stop()
    await asyncio.wait_for(task, DEADLINE_S)
    assert not alive(pid)
    assert not any("later" in line for line in lines)


async def test_output_goes_to_the_log_and_alerts_to_the_terminal(context: SupervisorContext, lines: Lines) -> None:
    """Every line is in the child's log; warnings and errors are also shown, with its name, and a flood is cut short."""
    code = f"""if True:
        print("2026 [info     ] fine")
        print("2026 [warning  ] hm")
        print('{{"level": "error", "event": "bad"}}')
        for number in range(50):
            print("ERROR number", number)
        {SLEEPER}
    """
    log = context.logs_dir / "talker.log"
    sup = Supervisor(context)
    task = asyncio.create_task(sup.run([[child("talker", code)]]))
    await until(lambda: log.exists() and b"up" in log.read_bytes())
    await lines.wait_for("more in")
    sup.stop()
    await task
    assert log.read_text().count("ERROR number") == 50
    assert any(line == "talker: 2026 [warning  ] hm" for line in lines)
    assert any(line.startswith("talker: {") for line in lines)
    assert not any("fine" in line for line in lines)
    assert sum("ERROR number" in line for line in lines) < 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has a parent death signal")
def test_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    """Kill -9 of the supervisor leaves no child behind, even one that ignores SIGTERM."""
    code = f"""
import asyncio, sys
from pathlib import Path
from embedded.supervisor import ChildSpec, Supervisor, SupervisorContext
sup = Supervisor(SupervisorContext(Path({str(tmp_path)!r}), Path({str(tmp_path)!r}), lambda line: None))
child = ChildSpec("worker", [sys.executable, "-ISc", {SLEEPER!r}])
asyncio.run(sup.run([[child]], lambda: print(sup.pids()["worker"], flush=True)))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    asyncio.run(until(lambda: not alive(pid), "the child's end"))


def test_orphans_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    """Orphans of an earlier run are stopped; a process that merely reuses a recorded id is not touched."""
    command = [sys.executable, "-ISc", SLEEPER]
    left, stranger = (subprocess.Popen(command, start_new_session=True) for _ in range(2))
    try:
        orphans.record_child(tmp_path, "left", left.pid)
        orphans.record_child(tmp_path, "stranger", stranger.pid)
        file = tmp_path / "stranger.pid"
        started = psutil.Process(stranger.pid).create_time()
        file.write_text(file.read_text().replace(str(started), str(started - 100)))
        (tmp_path / "broken.pid").write_text("{")
        (tmp_path / "gone.pid").write_text('{"pid": 999999999, "started": 1.0}')
        stopped = orphans.stop_all(tmp_path)
        left.wait(DEADLINE_S)
        assert stranger.poll() is None
        assert stopped == [f"left (process {left.pid}) was an orphan of an earlier run: stopped"]
        assert not list(tmp_path.glob("*.pid"))
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_descendants_of_a_dead_child_are_stopped(tmp_path: Path) -> None:
    """Descendants of a killed child are found by its session."""
    code = f"import subprocess, sys, time; c = [sys.executable, '-ISc', {SLEEPER!r}]"
    code += "; print(subprocess.Popen(c, stdout=subprocess.DEVNULL).pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-ISc", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    with parent.stdout:
        orphan = int(parent.stdout.readline())
    orphans.record_child(tmp_path, "parent", parent.pid)
    parent.kill()
    parent.wait()
    assert alive(orphan)
    orphans.stop_all(tmp_path)  # returns when they have ended
    assert not alive(orphan)


def test_unreaped_orphan_is_not_waited_for(tmp_path: Path) -> None:
    """A zombie counts as ended where the parent never reaps, for example the first process of a container."""
    code = f"import subprocess, sys, time; c = [sys.executable, '-ISc', {SLEEPER!r}]; quiet = subprocess.DEVNULL"
    code += "; print(subprocess.Popen(c, stdout=quiet, start_new_session=True).pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-ISc", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        left = int(parent.stdout.readline())
    try:
        orphans.record_child(tmp_path, "left", left)
        began = time.monotonic()
        orphans.stop_all(tmp_path)
        assert time.monotonic() - began < orphans._STOP_S
        assert not alive(left)
    finally:
        parent.kill()
        parent.wait()


def test_only_one_supervisor_per_directory(tmp_path: Path) -> None:
    """A second supervisor is refused with the first one's pid and the remedy; later the directory is free again."""
    with orphans.exclusive_lock(tmp_path, tmp_path):
        second = orphans.exclusive_lock(tmp_path, tmp_path)
        with (
            pytest.raises(OperatorError, match=rf"already running on .* \(process {os.getpid()}\): stop it with"),
            second,
        ):
            pass
    with orphans.exclusive_lock(tmp_path, tmp_path):
        pass


async def test_extras_start_after_all_are_ready_and_may_fail(context: SupervisorContext, lines: Lines) -> None:
    """An extra starts once the stages are ready; one that cannot start is reported, and nothing else ends."""
    supervisor = Supervisor(context)
    ready: list[bool] = []
    stages = [[child("stage", SLEEPER)]]

    async def never() -> bool:
        return False

    extras = [child("extra", SLEEPER), child("broken", "import sys; sys.exit('no luck')", ready=never)]
    running = asyncio.create_task(supervisor.run(stages, lambda: ready.append("extra" in supervisor.pids()), [*extras]))
    await lines.wait_for("extra is ready")
    await lines.wait_for("broken does not run: broken ended with status 1: no luck")
    assert ready == [False]
    assert set(supervisor.pids()) == {"stage", "extra"}
    pids = supervisor.pids().values()
    supervisor.stop()
    await running
    assert not any(alive(pid) for pid in pids)
