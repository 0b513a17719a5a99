"""The ingress as users run it, in processes of its own, and senders that keep account of every answer."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import cycle
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from embedded import preflight
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import topics
from tests.stack import ROOT
from tests.unit.ingress_support import read_answer, request

READY_S = 120.0


class Ingress:
    """`eventpush ingress` on free ports; its log is in a file."""

    def __init__(self, bootstrap: str, home: Path, **given: object) -> None:
        self.port, self.metrics_port = preflight.free_ports(2)
        settings = {"kafka_bootstrap": bootstrap, "ingress_port": self.port, "ingress_metrics_port": self.metrics_port}
        settings |= given
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENTPUSH_")}
        self._environment |= {f"EVENTPUSH_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = home / "ingress.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> "Ingress":
        self.start()
        return self

    def start(self) -> None:
        """Starts it, again too, and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "eventpush", "ingress"],
                env=self._environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        self.wait_until(self._listens)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it with a signal; its exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.end()

    def wait_until(self, holds, timeout_s: float = READY_S) -> None:
        """Waits for a condition, or fails with the log."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"it did not come to hold in {timeout_s} s:\n{self.log}"
            assert self.process.poll() is None, f"the ingress has ended:\n{self.log}"
            time.sleep(0.05)

    def status(self, path: str, port: int | None = None) -> int:
        """The status of a GET; 0 when there is no connection."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def children(self) -> list[int]:
        """The processes that serve, when there are several."""
        command = ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(self.process.pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]

    def _listens(self) -> bool:
        return self.status("/healthz") == 200


class Senders:
    """Connections that post events one after the other, each with a number, until stopped.

    As the sender does, they repeat what was not answered with 200, at once and on a new connection if need be. With
    several ports, a new connection goes to the next one, as a proxy's would.
    """

    def __init__(self, ports: Sequence[int], connections: int = 8) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted: set[int] = set()
        self.slowest_s = 0.0
        self.broken = 0  # connections that ended without an answer to a request that was sent
        self.unaccepted: set[int] = set()
        self._ports = cycle(ports)
        self._number = 0
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._send()) for _ in range(connections)]

    async def _send(self) -> None:
        number = 0  # what is to be repeated; 0: the last one was accepted
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", next(self._ports))
            except OSError:
                await asyncio.sleep(0.02)
                continue
            stays = True
            while stays and not self._stop.is_set():
                number = number or self._next()
                self.broken += 1
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    stays = await self._post(number, reader, writer)
                    self.broken -= 1
                    if number not in self.unaccepted:
                        number = 0
                    continue
                stays = False
            writer.close()

    def _next(self) -> int:
        self._number += 1
        self.unaccepted.add(self._number)
        return self._number

    async def _post(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Sends one event, notes the answer; gives whether the connection stays."""
        writer.write(request(b'{"IMEI":"35061207519%04d","Number":%d}' % (number % 997, number)))
        begun = time.monotonic()
        answer = await read_answer(reader)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.accepted.add(number)
            self.unaccepted.discard(number)
        else:
            await asyncio.sleep(0.01)
        return answer.headers.get("connection") != "close"

    async def until(self, holds, timeout_s: float = 120.0) -> None:
        """Sends on until the condition holds."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.02)

    async def more(self, count: int, timeout_s: float = 120.0) -> None:
        """Sends on until `count` more are accepted."""
        wanted = len(self.accepted) + count
        await self.until(lambda: len(self.accepted) >= wanted, timeout_s)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


@contextlib.asynccontextmanager
async def sending(port: int, connections: int = 8, others: Sequence[int] = ()) -> AsyncIterator[Senders]:
    senders = Senders([port, *others], connections)
    try:
        yield senders
    finally:
        await senders.stop()


async def make_topics(bootstrap: str, **given: object) -> Settings:
    """Creates the topics as `eventpush topics` does; a cluster that has just started may take a while to agree."""
    settings = Settings.model_validate({"kafka_bootstrap": bootstrap, **given})
    deadline = time.monotonic() + READY_S
    while True:
        try:
            await ensure_topics(settings)
        except OperatorError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return settings


async def raw_records(bootstrap: str) -> list:
    """Everything in the raw topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topics.RAW, p) for p in range(Settings().topic_partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records = []
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for some in (await consumer.getmany(timeout_ms=500)).values():
                records += some
        return records
    finally:
        await consumer.stop()


def numbers(records: list) -> Counter[int]:
    """How often each numbered event is there."""
    return Counter(int(match[1]) for r in records if (match := re.search(rb'"Number":(\d+)', r.value)))
