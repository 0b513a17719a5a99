"""Real processes, started and restarted as a supervisor does it, and ended in every way there is."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

_PAUSE_MIN_S, _PAUSE_MAX_S = 0.2, 5.0
_CALM_S = 20.0  # who lived that long begins with the shortest pause again
_END_S = 40.0

_given: set[int] = set()


def free_port() -> int:
    """A port that no process listens on, and that this process has not given away before."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


async def until(
    condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str, *, every_s: float = 0.1
) -> float:
    """Wait until the condition holds; returns how long that took, raises TimeoutError with `what` after `timeout_s`."""
    began_s = time.monotonic()
    while not await condition():
        if time.monotonic() - began_s > timeout_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(every_s)
    return time.monotonic() - began_s


class Process:
    """One command that is kept running: when it ends it is started again, after a growing pause."""

    def __init__(self, name: str, command: Sequence[str], environ: dict[str, str], directory: Path) -> None:
        self.name = name
        self.statuses: list[int] = []  # exit statuses so far; a signal's number negated
        self._command = command
        self._environ = environ
        self._directory = directory
        self._trigger = directory / f"{name}.trigger"
        self._ending = asyncio.Event()  # it is not restarted
        self._running: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        """Everything that it wrote, over all its lives."""
        return self._directory / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The living process; 0 while there is none."""
        return self._running.pid if self._running is not None and self._running.returncode is None else 0

    def start(self) -> None:
        """Start it, and keep it running."""
        self._ending.clear()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())

    def send_signal(self, number: signal.Signals) -> bool:
        """Send a signal to it and its children; False if it is not running."""
        if not self.pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        return True

    def arm(self, point: str) -> None:
        """Have it do what `tests.faults.points` says when it comes to the point for the next time."""
        self._trigger.write_text(point)

    @property
    def armed(self) -> bool:
        """Whether the point that it was armed with has not been reached yet."""
        return self._trigger.exists()

    def disarm(self) -> None:
        """Forget the point."""
        self._trigger.unlink(missing_ok=True)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it for good with a signal; its exit status. One that does not end is killed, and TimeoutError raised."""
        self._ending.set()
        if self._keeper is None:
            return 0
        self.send_signal(number)
        try:
            await asyncio.wait_for(asyncio.shield(self._keeper), _END_S)
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            await self._keeper
            raise TimeoutError(f"{self.name} did not end within {_END_S:g} s of {number.name}") from None
        finally:
            self._keeper = None
        return self.statuses[-1] if self.statuses else 0

    def _note(self, what: str) -> None:
        """Write it into the process's log, with the time."""
        with self.log.open("a") as log:
            log.write(f"--- {datetime.now(UTC):%H:%M:%S.%f} {self.name} {what}\n")

    async def _keep(self) -> None:
        pause_s = _PAUSE_MIN_S
        while not self._ending.is_set():
            began_s = time.monotonic()
            with self.log.open("ab") as log:
                self._running = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environ | {"FAULT_TRIGGER": str(self._trigger)},
                    start_new_session=True,
                )
            self._note(f"started as process {self._running.pid}")
            self.statuses.append(await self._running.wait())
            self._note(f"ended with status {self.statuses[-1]}")
            with contextlib.suppress(ProcessLookupError):  # children that outlived it
                os.killpg(self._running.pid, signal.SIGKILL)
            if self._ending.is_set():
                return
            if time.monotonic() - began_s > _CALM_S:
                pause_s = _PAUSE_MIN_S
            await asyncio.sleep(pause_s)
            pause_s = min(_PAUSE_MAX_S, pause_s * 2)
