"""A child process and its cost: CPU-seconds and memory, including its children, from the kernel's counters."""

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


class MeasuredProcess:
    """A process started and stopped here, by its own id."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log_file: Path) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                list(arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=os.environ | dict(environ),
            )  # fmt: skip
        self._process = psutil.Process(self._popen.pid)

    def cpu_s(self) -> float:
        """Return CPU-seconds, user and system, of the process and its running children."""
        return sum(sum(p.cpu_times()[:2]) for p in self._family())

    def rss_bytes(self) -> int:
        """Return the current resident memory."""
        return sum(p.memory_info().rss for p in self._family())

    def require_alive(self) -> None:
        """Raise `RuntimeError` with the end of its log if the process has ended."""
        if self._popen.poll() is not None:
            tail = self.log_file.read_text(errors="replace")[-2_000:]
            raise RuntimeError(f"{self.log_file.name}: ended with status {self._popen.returncode}\n{tail}")

    @asynccontextmanager
    async def limited_to(self, share: float, phase: float = 0) -> AsyncIterator[None]:
        """Limit the process to this share of a core, by stopping it for the rest of each 50 ms period.

        `phase` delays its periods, as a share of one. A process with several threads may use somewhat more.
        """
        limiter = asyncio.create_task(self._limit(share, phase))
        try:
            yield
        finally:
            limiter.cancel()
            await asyncio.gather(limiter, return_exceptions=True)

    async def _limit(self, share: float, phase: float) -> None:
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
        """Terminate the process; kill it if it does not end in time."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            await asyncio.to_thread(self._popen.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process and its children."""
        for process in reversed(self._family()):
            process.kill()
        self._popen.wait()

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
