"""The console in a process of its own, with doubles for its sources.

Start it with `python -m tests.unit.console_process AWAY EVENTS`. While the file AWAY exists, Kafka and ClickHouse are
away. The map has EVENTS events. Every text that a sender writes is markup.
"""

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np

from eventpush.console import find
from eventpush.console.clickhouse import ClickHouse
from eventpush.console.event_ring import MapEvent
from eventpush.console.feed import EventFeed
from eventpush.console.flow import Stored
from eventpush.console.metric_samples import Scrape
from eventpush.console.outline import Outlines
from eventpush.console.polled import Polled
from eventpush.console.progress import Backlog, Progress
from eventpush.console.sender_counts import SenderCounts
from eventpush.console.server import serve
from eventpush.console.sources import Account, InFlight, Sources, Totals
from eventpush.console.stages import STAGES, Process, StageReading
from eventpush.tracing.facts import Position
from eventpush.tracing.timeline import Stage, Trace
from runtime.platform import logging
from runtime.platform.errors import OperatorError
from runtime.platform.event_loop import run_loop
from runtime.platform.settings import Settings, load
from schemas import topics
from schemas.dead_letter import Violation
from schemas.event_types import SEVERITIES

T = TypeVar("T")

MARKUP = "<img src=x onerror=window.pwned=1>"
EVENT_ID = "f907a1cb-2f1e-06c4-5b3e-63f94a01f798"


class _Result:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    @property
    def result_rows(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self._rows]

    def named_results(self) -> list[dict[str, Any]]:
        return self._rows


class _Client:
    """Answers each of the console's queries with one row of markup."""

    async def query(self, query: str, **_: Any) -> _Result:
        if "uniqExact" in query:
            group = {"reason": f"{MARKUP}r", "field": f"{MARKUP}f", "sender": f"{MARKUP}s", "letters": 1}
            return _Result([group | {"first": "2026-11-26 02:14", "last": "2026-11-26 02:15", "example": EVENT_ID}])
        letter = {"letter": EVENT_ID, "event": f"{MARKUP}e", "imei": f"{MARKUP}i", "received_us": 1_000_000}
        if "reasons_json" not in query:
            return _Result([letter])
        reason = f'[{{"code":"{MARKUP}c","field":"IMEI","found":"{MARKUP}o","expected":"{MARKUP}x"}}]'
        return _Result([letter | {
            "stage": "streams", "receipt_id": f"{MARKUP}receipt", "sender": f"{MARKUP}s", "payload_encoding": "utf-8",
            "payload": f'{{"IMEI":"{MARKUP}i","{MARKUP}name":"{MARKUP}value"}}', "reasons_json": reason,
            "conflict": None, "replayed_letter": None, "attempt": 0, "raw_topic": topics.RAW, "raw_partition": 0,
            "raw_offset": 1, "resolved_by": None,
        }])  # fmt: skip


class _ClickHouse(ClickHouse):
    def __init__(self, settings: Settings, away: Path) -> None:
        super().__init__(settings)
        self._away = away

    async def rows(self, query: str, parameters: Any = None) -> list[dict[str, Any]]:
        if "telematics.events" in query:
            return [{"event_id": EVENT_ID, "location": f"{MARKUP}location", "driver": f"{MARKUP}driver"}]
        return await super().rows(query, parameters)

    async def ask(self, question: Callable[[Any], Awaitable[T]]) -> T:
        if self._away.exists():
            raise OperatorError("ClickHouse at nowhere does not answer", "")
        return await question(_Client())


class _Feed(EventFeed):
    def watch(self) -> None:
        """Nothing more comes."""


class _Outlines(Outlines):
    async def get(self) -> bytes:
        return b'{"type":"MultiPolygon","coordinates":[[[[70,10],[90,10],[80,30],[70,10]]]]}'


class Doubles(Sources):
    """Sources with values of their own; each request counts one more event."""

    def __init__(self, settings: Settings, away: Path, events: int) -> None:
        super().__init__(settings)
        self._away_file = away
        self._count = 0
        self.clickhouse = _ClickHouse(settings, away)
        self.feed = _Feed(settings)
        self.feed.ring.add(_events(events))
        self.outlines = _Outlines()
        self.stages = Polled(self._stages, 0.2, 5.0)
        self.progress = Polled(self._backlogs, 0.2, 5.0)
        self.stored = Polled(self._in_clickhouse, 0.2, 5.0)
        self.senders = Polled(self._senders, 0.2, 5.0)
        self.account = Polled(self._reconciled, 0.2, 5.0)

    async def _stages(self) -> dict[str, StageReading]:
        self._count += 1
        return {stage: StageReading(stage, [Process("http://x", self._scrape(0), self._scrape(1))]) for stage in STAGES}

    def _scrape(self, at: int) -> Scrape:
        refused = {frozenset({("sender", f"{MARKUP}s"), ("reason", "not_json")}): 7.0}
        counted: dict[frozenset[tuple[str, str]], float] = {frozenset(): (self._count + at) * 100.0}
        return Scrape(
            self._count + at, {"eventpush_ingress_events_total": counted, "eventpush_ingress_refusals_total": refused}
        )

    async def _backlogs(self) -> Progress:
        if self._away_file.exists():
            raise OperatorError("Kafka at nowhere does not answer", "")
        now_us = time.time_ns() // 1_000
        waiting = Backlog(stage="sink", topic=topics.EVENTS, partition=0, records=3, oldest_us=now_us - 2_000_000)
        return Progress(backlogs=[waiting])

    async def _in_clickhouse(self) -> Stored:
        await self.clickhouse.ask(_nothing)
        return Stored(self._count, 1, time.time_ns() // 1_000 - 15_000_000)

    async def _senders(self) -> list[SenderCounts]:
        await self.clickhouse.ask(_nothing)
        return [SenderCounts(f"{MARKUP}s", 10, 1, 2, 1_000_000), SenderCounts("", 5, 0, 0, 1_000_000)]

    async def _reconciled(self) -> Account:
        return Account(12, InFlight(), Totals(10, 1, 1), [])


async def _nothing(_: Any) -> None:
    return None


def _events(count: int) -> list[MapEvent]:
    random = np.random.default_rng(1)
    latitudes, longitudes = random.uniform(8, 35, count), random.uniform(68, 97, count)
    many = [
        MapEvent(
            f"{at:036d}", "overspeed", f"{at:015d}", "2026-11-26T02:14:00.000000Z", lat, lon, SEVERITIES[at % 3],
            fleet=f"fleet-{at % 7}",
        )
        for at, (lat, lon) in enumerate(zip(latitudes.tolist(), longitudes.tolist(), strict=True))
    ]  # fmt: skip
    texts = {name: f"{MARKUP}{name}" for name in ("vehicle", "fleet", "driver", "location", "sender")}
    hostile = MapEvent(EVENT_ID, f"{MARKUP}event", f"{MARKUP}imei", f"{MARKUP}time", 20.0, 80.0, "critical", **texts)
    return [*many[:-1], hostile]


async def _trace(_answer: type, *arguments: str, **_: object) -> list[Trace]:
    """Return a trace of markup; for the word `none` what the command says when there is nothing."""
    if arguments[-1] == "none":
        raise OperatorError(f"`eventpush trace`: no trace of {MARKUP}none", "")
    position = Position(topics.RAW, 0, 1)
    return [
        Trace(
            outcome="event", summary=f"event {MARKUP}summary", event=f"{MARKUP}event", imei=f"{MARKUP}imei",
            receipt_id=f"{MARKUP}receipt", event_id=EVENT_ID, dead_letter_id=None, raw=position, size_bytes=1,
            sender=f"{MARKUP}sender", reasons=[Violation(code="c", field="f", found="o", expected="e")],
            published=[position], notes=[f"{MARKUP}note"],
            stages=[Stage("request", "2026-11-26T02:14:00Z", None, f"{MARKUP}detail"), Stage("row", None, 0.5, "row")],
        )
    ]  # fmt: skip


async def main(away: Path, events: int) -> int:
    """Serve until SIGTERM."""
    settings = load()
    logging.setup(settings, "console")
    with patch.object(find, "run_json", _trace):
        return await serve(settings, Doubles(settings, away, events))


if __name__ == "__main__":
    sys.exit(run_loop(main(Path(sys.argv[1]), int(sys.argv[2]))))
