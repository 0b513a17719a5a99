"""What can be asked of a running pipeline, whoever started it: is it ready, is it at rest, what is its history."""

import abc
import asyncio
import contextlib
from pathlib import Path

import aiohttp
import orjson
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from runtime.kafka.topic_admin import admin
from runtime.platform.settings import Settings, load
from schemas import topics
from tests.faults.check_result import CheckResult
from tests.faults.checker import check
from tests.faults.history import History, Seen, Sent, save
from tests.faults.processes import until
from tests.faults.reader import Reader, consumer, read_clickhouse, stored

READY_S = 90.0
_DRAIN_S = 120.0
_ID = len('{"event_id":"00000000-0000-0000-0000-000000000000"')  # how each event begins
_EXCEPTIONS = (KafkaError, OSError, aiohttp.ClientError, TimeoutError)


class Watched(abc.ABC):
    """A pipeline under test: what was sent to it, and the outcomes. Its files are in `directory`."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self.environ = environ
        self.settings: Settings = load(environ)
        self.sent: list[Sent] = []  # all attempts of all loads
        self.poison: set[str] = set()  # texts of records that a test put onto a topic past the pipeline
        self.reader = Reader(self.settings.kafka_bootstrap)

    @property
    def bootstrap(self) -> str:
        return self.settings.kafka_bootstrap

    @property
    def ingress_port(self) -> int:
        return self.settings.ingress_port

    @abc.abstractmethod
    def operators_ports(self) -> list[int]:
        """Where `/readyz` of each stage is asked for."""

    async def ready(self, timeout_s: float = READY_S) -> float:
        """Wait until every stage says that it is ready; how long that took."""
        return await until(self._is_ready, timeout_s, f"everything ready; see the logs in {self.directory}")

    async def check(self, *, keep: bool = False) -> CheckResult:
        """Let the pipeline come to rest, and compare `sent` with what there is.

        The evidence is written to `directory`/history if something is wrong, or if it is to be kept anyway.
        """
        with contextlib.suppress(TimeoutError):  # the checker says what is missing
            await until(self.is_processed, _DRAIN_S, "every raw event processed", every_s=0.5)
            await until(self._is_stored, _DRAIN_S, "every outcome in ClickHouse", every_s=0.5)
        history = await self._history()
        result = await asyncio.to_thread(check, history)
        if result.faults or keep:
            await asyncio.to_thread(save, history, self.directory / "history")
            with contextlib.suppress(*_EXCEPTIONS):
                await self._keep_offsets()
        return result

    async def _history(self) -> History:
        """What there is by now; a part that cannot be read is left out of it."""
        rows = []
        with contextlib.suppress(*_EXCEPTIONS):
            await self.reader.read()
        with contextlib.suppress(*_EXCEPTIONS):
            rows = await read_clickhouse(self.settings)
        return History(self.sent, self._but_poison(self.reader.seen), rows)

    async def _keep_offsets(self) -> None:
        """Where each group stands on each partition, with what its commit carries."""
        found = {}
        async with admin(self.settings) as client:
            for group in (self.settings.streams_app_id, self.settings.sink_app_id):
                offsets = await client.list_consumer_group_offsets(group)
                found[group] = {f"{tp.topic}[{tp.partition}]": list(at) for tp, at in sorted(offsets.items())}
        (self.directory / "history" / "groups.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))

    def _but_poison(self, seen: list[Seen]) -> list[Seen]:
        return [s for s in seen if not any(poison in s.value for poison in self.poison)]

    async def _is_stored(self) -> bool:
        try:
            await self.reader.read()
            found = await stored(self.settings)
        except _EXCEPTIONS:
            return False
        letters = [s.value for s in self.reader.seen if s.topic == topics.DEAD_LETTER]
        refused = sum('"stage":"sink"' in letter for letter in letters)
        events = len({s.value[:_ID] for s in self.reader.seen if s.topic == topics.EVENTS})
        return found["events"] >= events - refused and found["dead_letters"] >= len(letters)

    async def is_processed(self) -> bool:
        """Whether the stream stage has committed every raw event."""
        raw = [TopicPartition(topics.RAW, p) for p in range(self.settings.topic_partitions)]
        try:
            async with asyncio.timeout(20):
                async with consumer(self.bootstrap) as client:
                    ends = await client.end_offsets(raw)
                committed = await self._committed()
        except _EXCEPTIONS:
            return False
        return all(committed.get(tp, 0) >= end for tp, end in ends.items())

    async def _committed(self) -> dict[TopicPartition, int]:
        async with admin(self.settings) as client:
            offsets = await client.list_consumer_group_offsets(self.settings.streams_app_id)
        return {tp: found.offset for tp, found in offsets.items()}

    async def _is_ready(self) -> bool:
        answers = await asyncio.gather(*map(self.readiness, self.operators_ports()))
        return all(failed == {} for failed in answers)

    async def readiness(self, port: int) -> dict[str, str] | None:
        """What `/readyz` says: what is missing, by dependency, so {} when it is ready; None without an answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
                session.get(f"http://127.0.0.1:{port}/readyz") as answer,
            ):
                failed = orjson.loads(await answer.read())["failed"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError):
            return None
        assert (answer.status == 200) == (failed == {})
        return failed
