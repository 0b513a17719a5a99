"""The ingress in a process of its own, with a publisher that keeps nothing: `python -m tests.unit.ingress_process`.

Prints its port, serves until its standard input ends. So its memory and its time are its own, not its attackers'.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from ingress.batching import Record
from ingress.delivery import DeliveryCallback
from ingress.http.server import serve
from ingress.http.signals import readable
from runtime.platform import logging
from runtime.platform.event_loop import run_loop
from runtime.platform.settings import load
from tests.stack import ROOT
from tests.unit.memory_publisher import MemoryPublisher


class Forgetful(MemoryPublisher):
    def publish(self, records: Sequence[Record], callback: DeliveryCallback) -> None:
        """Accepts."""
        asyncio.get_running_loop().call_soon(callback, None)


async def main() -> int:
    settings, stopped = load(), asyncio.Event()
    logging.setup(settings, "ingress")

    async def stop_at_the_end() -> None:
        await readable(sys.stdin.fileno())
        stopped.set()

    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
        ending = asyncio.create_task(stop_at_the_end())
        port = listener.getsockname()[1]
        status = await serve(
            settings,
            listener,
            Forgetful(),
            on_serving=lambda: print(port, flush=True),  # noqa: T201 - for the parent
            stopped=stopped,
        )
        ending.cancel()
        return status


@contextlib.contextmanager
def ingress_process(**given: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The running process and its port; it must end with status 0."""
    environment = {f"EVENTPUSH_{name.upper()}": str(value) for name, value in given.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.unit.ingress_process"],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.stdin.close()
            assert process.wait(15) == 0


if __name__ == "__main__":
    sys.exit(run_loop(main()))
