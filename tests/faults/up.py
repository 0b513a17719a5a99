"""`eventpush up`, the one command, as a pipeline under test: killed as a whole, and started again on its data."""

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path

import psutil

from tests.faults.processes import Process
from tests.faults.watching import Watched
from tests.stack import up_environ

_START_S = 180.0  # it fetches nothing: the jars are there


class Up(Watched):
    """The command with ports and data of its own; only the test restarts it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Set here, because the password that the command would make is not there yet when the settings are read.
        environ = up_environ(directory / "data") | {"EVENTPUSH_CLICKHOUSE_PASSWORD": secrets.token_hex(16)}
        super().__init__(directory, environ)
        command = [sys.executable, "-m", "eventpush", "up"]
        self._process = Process("up", command, os.environ | environ, directory)

    def operators_ports(self) -> list[int]:
        settings = self.settings
        return [settings.ingress_metrics_port, settings.streams_metrics_port, settings.sink_metrics_port]

    async def start(self) -> None:
        """Start it, and wait until all of it is ready."""
        self._process.start()
        await self.ready(_START_S)

    async def kill(self) -> int:
        """SIGKILL to the command and to everything that it started, at once; how many processes that were."""
        if not self._process.pid:
            return 0
        parent = psutil.Process(self._process.pid)
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGSTOP)  # so that none can restart the others
        stopping = asyncio.create_task(self._process.stop(signal.SIGKILL))
        for process in family:
            process.send_signal(signal.SIGKILL)
        await stopping
        await asyncio.to_thread(psutil.wait_procs, family, 30)
        return len(family)
