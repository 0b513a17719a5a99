"""The supervisor's claims, on children that are a few lines of Python."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedded import leftovers, supervisor
from embedded.supervisor import Child, Place, Supervisor
from runtime.platform.errors import OperatorError

DEADLINE_S = 20.0
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


class Lines(list[str]):
    """What was said, and a way to wait for it."""

    async def wait_for(self, part: str, count: int = 1) -> None:
        await until(lambda: sum(part in line for line in self) >= count, f"{part!r} in {self}")


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        await asyncio.sleep(0.02)


def child(name: str, code: str, **options: object) -> Child:
    return Child(name, [sys.executable, "-ISc", code], **options)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def said() -> Lines:
    return Lines()


@pytest.fixture
def place(tmp_path: Path, said: Lines) -> Place:
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    return Place(tmp_path / "logs", tmp_path / "run", said.append)


async def test_stages_start_in_order_and_stop_the_other_way_round(place: Place, said: Lines) -> None:
    """A stage begins when the one before is ready, and a step runs between; the last started is the first stopped."""
    order: list[str] = []
    files = {name: place.logs_dir / f"{name}.up" for name in ("first", "second", "third")}

    def one(name: str, *others: Path) -> Child:
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

    boss = Supervisor(place)
    ended: list[str] = []
    original = leftovers.forget
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leftovers, "forget", lambda run, name: (ended.append(name), original(run, name)))
        stages = [[one("first")], step, [one("second", files["first"])], [one("third", files["second"])]]
        await boss.run(stages, on_ready=boss.stop)
    assert order == ["step"]
    assert ended == ["third", "second", "first"]


async def test_dead_child_comes_back(place: Place, said: Lines) -> None:
    """A child that is killed is started again, and the person is told of both."""
    boss = Supervisor(place)
    task = asyncio.create_task(boss.run([[child("worker", SLEEPER)]]))
    await said.wait_for("worker is ready")
    first = boss.pids()["worker"]
    os.kill(first, signal.SIGKILL)
    await said.wait_for("worker was killed by SIGKILL; starting it again in 0.2 s")
    await said.wait_for("worker is ready again")
    assert boss.pids()["worker"] != first
    boss.stop()
    await task
    assert boss.pids() == {}


async def test_pause_between_restarts_grows(place: Place, said: Lines) -> None:
    """A child that keeps dying after it was ready once is started again after a pause that doubles."""
    boss = Supervisor(place)
    task = asyncio.create_task(boss.run([[child("looper", "import sys; sys.exit(3)")]]))
    for pause in ("0.2", "0.4", "0.8"):
        await said.wait_for(f"looper ended with status 3; starting it again in {pause} s")
    boss.stop()
    await task


async def test_pause_is_short_again_after_a_steady_time(place: Place, said: Lines) -> None:
    """Having been up for its steady time, a child's next death is met with the shortest pause."""
    boss = Supervisor(place)
    code = "import sys, time; time.sleep(0.3); sys.exit(3)"
    task = asyncio.create_task(boss.run([[child("steady", code, steady_s=0.1)]]))
    await said.wait_for("starting it again in 0.2 s", count=2)
    boss.stop()
    await task
    assert not any("0.4 s" in line for line in said)


async def test_child_that_never_becomes_ready_ends_everything(place: Place, said: Lines) -> None:
    """Dying again and again before being ready is a problem: its last words in one line, the others are ended."""
    boss = Supervisor(place)

    async def never() -> bool:
        return False

    broken = child("broken", "import sys; sys.exit('no room for me: make some')", ready=never)
    pids: dict[str, int] = {}
    with pytest.raises(
        OperatorError, match=r"broken ended with status 1: no room for me: make some: see .*broken\.log"
    ):
        await boss.run([[child("fine", SLEEPER)], lambda: _note(pids, boss), [broken]])
    assert sum("broken ended" in line for line in said) == supervisor.ATTEMPTS - 1
    assert not alive(pids["fine"])


async def _note(pids: dict[str, int], boss: Supervisor) -> None:
    pids.update(boss.pids())


async def test_child_that_ignores_sigterm_is_killed(place: Place, said: Lines) -> None:
    """The time to stop is bounded: then it is SIGKILL, also for what the child started itself."""
    grandchild_file = place.logs_dir / "grandchild"
    code = (
        "import pathlib, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-ISc', 'import time; time.sleep(600)']);"
        f"pathlib.Path({str(grandchild_file)!r}).write_text(str(p.pid)); time.sleep(600)"
    )

    async def ready() -> bool:
        return grandchild_file.exists() and grandchild_file.read_text() != ""

    boss = Supervisor(place)
    pids: dict[str, int] = {}
    stages = [[child("deaf", code, ready=ready, stop_timeout_s=0.3)], lambda: _note(pids, boss)]
    await boss.run(stages, on_ready=boss.stop)
    assert any("deaf did not stop within 0.3 s: killed" in line for line in said)
    grandchild = int(grandchild_file.read_text())
    await until(lambda: not alive(pids["deaf"]) and not alive(grandchild))


async def test_second_stop_kills_at_once(place: Place, said: Lines) -> None:
    """Who asks twice does not wait for anybody."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    boss = Supervisor(place)
    log = place.logs_dir / "deaf.log"

    async def ready() -> bool:
        return log.exists() and b"up" in log.read_bytes()

    task = asyncio.create_task(boss.run([[child("deaf", code, ready=ready, stop_timeout_s=600)]]))
    await said.wait_for("deaf is ready")
    boss.stop()
    await said.wait_for("stopping")
    boss.stop()
    await asyncio.wait_for(task, DEADLINE_S)


async def test_killed_by_us_is_not_started_again(place: Place, said: Lines) -> None:
    """A child that a second stop kills before its turn has come stays ended, and nothing else is said of it."""
    one = supervisor.Supervised(child("one", SLEEPER), place)
    await one.start()
    one.kill()
    await until(lambda: one.pid is None)
    await one.stop()
    assert not any("starting it again" in line for line in said)


async def test_stop_during_the_start(place: Place, said: Lines) -> None:
    """Told to stop while a child is still starting, or between two lives, the supervisor ends all the same."""

    async def never() -> bool:
        return False

    boss = Supervisor(place)
    slow = child("slow", SLEEPER, ready=never)
    task = asyncio.create_task(boss.run([[slow], [child("later", SLEEPER)]]))
    await until(lambda: "slow" in boss.pids())
    pid = boss.pids()["slow"]
    boss.stop()
    await asyncio.wait_for(task, DEADLINE_S)
    assert not alive(pid)
    assert not any("later" in line for line in said)


async def test_output_goes_to_the_log_and_alarms_to_the_console(place: Place, said: Lines) -> None:
    """Every line is in the child's log; warnings and errors are also shown, with its name, and a flood is cut short."""
    code = f"""if True:
        print("2026 [info     ] fine")
        print("2026 [warning  ] hm")
        print('{{"level": "error", "event": "bad"}}')
        for number in range(50):
            print("ERROR number", number)
        {SLEEPER}
    """
    log = place.logs_dir / "talker.log"
    boss = Supervisor(place)
    task = asyncio.create_task(boss.run([[child("talker", code)]]))
    await until(lambda: log.exists() and b"up" in log.read_bytes())
    await said.wait_for("more in")
    boss.stop()
    await task
    assert log.read_text().count("ERROR number") == 50
    assert any(line == "talker: 2026 [warning  ] hm" for line in said)
    assert any(line.startswith("talker: {") for line in said)
    assert not any("fine" in line for line in said)
    assert sum("ERROR number" in line for line in said) < 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ties a process to its parent's life")
def test_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    """Kill -9 of the supervisor leaves no child behind, even one that ignores SIGTERM."""
    code = f"""
import asyncio, sys
from pathlib import Path
from embedded.supervisor import Child, Place, Supervisor
boss = Supervisor(Place(Path({str(tmp_path)!r}), Path({str(tmp_path)!r}), lambda line: None))
child = Child("worker", [sys.executable, "-ISc", {SLEEPER!r}])
asyncio.run(boss.run([[child]], lambda: print(boss.pids()["worker"], flush=True)))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=DEADLINE_S)
    assert not alive(pid)


def test_leftovers_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    """What an earlier run left is ended; a process that merely has a remembered id is not touched."""
    command = [sys.executable, "-ISc", SLEEPER]
    left, stranger = (subprocess.Popen(command, start_new_session=True) for _ in range(2))
    try:
        leftovers.remember(tmp_path, "left", left.pid)
        leftovers.remember(tmp_path, "stranger", stranger.pid)
        file = tmp_path / "stranger.pid"
        started = psutil.Process(stranger.pid).create_time()
        file.write_text(file.read_text().replace(str(started), str(started - 100)))
        (tmp_path / "broken.pid").write_text("{")
        (tmp_path / "gone.pid").write_text('{"pid": 999999999, "started": 1.0}')
        lines = leftovers.stop_all(tmp_path)
        left.wait(DEADLINE_S)
        assert stranger.poll() is None
        assert lines == [f"left (process {left.pid}) was left over from an earlier run: stopped"]
        assert not list(tmp_path.glob("*.pid"))
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_leftover_children_of_a_dead_child_are_stopped(tmp_path: Path) -> None:
    """A child that was killed may have left processes of its own: they are found by the session that it began."""
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-ISc', {SLEEPER!r}]).pid, flush=True)"
    code += "; import time; time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-ISc", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    with parent.stdout:
        orphan = int(parent.stdout.readline())
    leftovers.remember(tmp_path, "parent", parent.pid)
    parent.kill()
    parent.wait()
    assert alive(orphan)
    leftovers.stop_all(tmp_path)  # waits for what it stops
    assert not alive(orphan)


def test_leftover_that_nobody_asks_after_is_not_waited_for(tmp_path: Path) -> None:
    """Where the parent never reaps (the first process of a container, say), an ended process is an ended process."""
    code = f"import subprocess, sys, time; c = [sys.executable, '-ISc', {SLEEPER!r}]"
    code += "; print(subprocess.Popen(c, start_new_session=True).pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-ISc", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        left = int(parent.stdout.readline())
    try:
        leftovers.remember(tmp_path, "left", left)
        began = time.monotonic()
        leftovers.stop_all(tmp_path)
        assert time.monotonic() - began < leftovers._STOP_S
        assert not alive(left)
    finally:
        parent.kill()
        parent.wait()


def test_only_one_supervisor_a_directory(tmp_path: Path) -> None:
    """A second one is told who is there and what to do; after the first has ended the directory is free again."""
    with leftovers.only_one(tmp_path, tmp_path):
        second = leftovers.only_one(tmp_path, tmp_path)
        with (
            pytest.raises(OperatorError, match=rf"already running on .* \(process {os.getpid()}\): stop it there"),
            second,
        ):
            pass
    with leftovers.only_one(tmp_path, tmp_path):
        pass
