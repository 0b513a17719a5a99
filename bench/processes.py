"""Child processes and what they cost: CPU-seconds and memory of the process with its children, as the kernel counts."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

_STOP_S = 20
_PERIOD_S = 0.05


class Child:
    """A process that was started here and is stopped here, by its own id."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log_file: Path) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                list(arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=os.environ | dict(environ),
            )  # fmt: skip
        self._process = psutil.Process(self._popen.pid)

    def cpu_s(self) -> float:
        """CPU-seconds, user and system, of the process and its living children."""
        return sum(sum(p.cpu_times()[:2]) for p in self._family())

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return sum(p.memory_info().rss for p in self._family())

    def require_alive(self) -> None:
        """Raise `RuntimeError` with the end of its log if the process has ended."""
        if self._popen.poll() is not None:
            tail = self.log_file.read_text(errors="replace")[-2_000:]
            raise RuntimeError(f"{self.log_file.name}: ended with status {self._popen.returncode}\n{tail}")

    @asynccontextmanager
    async def held_to(self, share: float, phase: float = 0) -> AsyncIterator[None]:
        """Lets it run for this share of the time only, in turns of 50 ms: as if it had so much of a core.

        `phase` is how much later its turns begin, as a share of them. A process with a second thread may use somewhat
        more.
        """
        holding = asyncio.create_task(self._hold(share, phase))
        try:
            yield
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)

    async def _hold(self, share: float, phase: float) -> None:
        try:
            await asyncio.sleep(_PERIOD_S * phase)
            while True:
                self._popen.send_signal(signal.SIGSTOP)
                await asyncio.sleep(_PERIOD_S * (1 - share))
                self._popen.send_signal(signal.SIGCONT)
                await asyncio.sleep(_PERIOD_S * share)
        finally:
            self._popen.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ask it to end, wait, and end it if it does not."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            await asyncio.to_thread(self._popen.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its children at once."""
        for process in reversed(self._family()):
            process.kill()
        self._popen.wait()

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
