"""Run a simulation: send, watch, wait for the pipeline to drain, compare."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from eventpush import topic_reader
from eventpush.clickhouse_client import connected
from eventpush.simulation import comparison, fleet, stored_events
from eventpush.simulation.sender import Sender
from eventpush.simulation.visibility import VisibilityProbe
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas import account, times, topics

_POLL_S = 0.5


@dataclass(frozen=True)
class SimulationPlan:
    """What to simulate."""

    url: str
    devices: int
    rate: float  # events a second
    duration_s: float
    seed: int
    shares: fleet.Shares
    lost_answers: float  # share of the requests
    token: str | None
    ca_file: Path | None  # for the URL's certificate; None: the system's
    patience_s: float  # how long to wait for a pipeline that makes no progress


class SimulationReport(msgspec.Struct, frozen=True):
    """The result. `sent` = `unique` + repeats + `dead_lettered` + `unacknowledged` + `lost`."""

    seed: int
    sent: int  # events, each counted once however often it was sent
    requests: int
    acknowledged: int
    unacknowledged: int  # never answered 200: a real sender would keep retrying
    lost_answers: int
    answers: dict[str, int]
    unique: int  # identities that must be stored
    already_stored: int  # of `unique`, before the run began
    duplicates_dropped: int  # by the stream stage since the run began, from any sender
    dead_lettered: int
    lost: int
    doubled: int  # rows
    doubled_messages: int  # on telematics.events.v1
    delay_p50_s: float | None
    delay_p99_s: float | None
    delay_samples: int
    drained: bool

    @property
    def clean(self) -> bool:
        """Nothing is lost or duplicated."""
        return self.lost == 0 and self.doubled == 0 and self.doubled_messages == 0


class _Message(msgspec.Struct, gc=False):
    """The fields that identify an event on the topic."""

    imei: str
    device_time: str
    event: str
    geofence_name: str | None


_message = msgspec.json.Decoder(_Message).decode


async def simulate(settings: Settings, plan: SimulationPlan, on_progress: Callable[[str], None]) -> SimulationReport:
    """Run the plan; `on_progress` receives a line per second. Raise `OperatorError` if a service is unavailable."""
    await _reachable(plan.url)
    events = list(islice(fleet.generate(plan.seed, plan.devices, plan.shares), round(plan.rate * plan.duration_s)))
    begins = {topic: _ends(await topic_reader.offsets(settings, topic)) for topic in (topics.EVENTS, topics.ACCOUNT)}
    async with connected(settings) as client:
        before = await stored_events.rows(client, plan.seed, [event.identity for event in events])
    headers = {"Authorization": f"Bearer {plan.token}"} if plan.token else {}
    tls = ssl.create_default_context(cafile=plan.ca_file) if plan.ca_file else None
    sender = Sender(plan.url, headers=headers, seed=plan.seed, lost_answers=plan.lost_answers, ssl_context=tls)
    visibility = VisibilityProbe(settings, sender, plan.rate)
    background = [
        asyncio.create_task(visibility.watch()),
        asyncio.create_task(_progress(sender, visibility, on_progress)),
    ]
    try:
        await sender.send(events, plan.rate, plan.patience_s)
        on_progress("all sent: waiting for the pipeline to drain")
        wanted = comparison.expected(sender.deliveries)
        drained = await _drained(settings, plan, wanted)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
    return await _report(settings, plan, sender, visibility, wanted, before, begins, drained=drained)


async def _reachable(url: str) -> None:
    where = urlsplit(url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise OperatorError(f"--url {url} is not an HTTP URL", "write it as http://host:8080/api/events")
    try:
        port = where.port or (443 if where.scheme == "https" else 80)
        _, writer = await asyncio.open_connection(where.hostname, port)
    except OSError as error:
        raise OperatorError(
            f"nothing answers at --url {url} ({error.strerror or error})",
            "start `eventpush up`, or `eventpush ingress`",
        ) from None
    writer.close()
    await writer.wait_closed()


async def _progress(sender: Sender, visibility: VisibilityProbe, on_progress: Callable[[str], None]) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(1)
        counters = sender.counters
        p50 = comparison.quantile(visibility.delays_s[-100:], 0.5)
        on_progress(
            f"{time.monotonic() - began:4.0f} s  {counters.due} due  {counters.acknowledged} acknowledged  "
            f"{counters.requests} requests  {counters.lost_answers} answers lost  "
            f"{counters.due - counters.acknowledged} waiting"
            + (f"  visible after {p50:.2f} s" if p50 is not None else "")
        )


async def _drained(settings: Settings, plan: SimulationPlan, wanted: comparison.Expected) -> bool:
    """Wait until the stream stage has read all raw records and ClickHouse has everything expected.

    Return False if neither has advanced for `patience_s`.
    """
    raw_ends = _ends(await topic_reader.offsets(settings, topics.RAW))
    remaining, since = None, time.monotonic()
    while time.monotonic() - since < plan.patience_s:
        done = await topic_reader.committed(settings, settings.streams_app_id, topics.RAW)
        lag = sum(max(0, end - done.get(partition, 0)) for partition, end in raw_ends.items())
        async with connected(settings) as client:
            rows = await stored_events.rows(client, plan.seed, wanted.events)
            letters = await stored_events.dead_letters(client, plan.seed)
        now_remaining = lag + comparison.missing(wanted, rows, letters)
        if now_remaining == 0:
            return True
        if now_remaining != remaining:
            remaining, since = now_remaining, time.monotonic()
        await asyncio.sleep(_POLL_S)
    return False


async def _report(
    settings: Settings,
    plan: SimulationPlan,
    sender: Sender,
    visibility: VisibilityProbe,
    wanted: comparison.Expected,
    before: Mapping[fleet.Identity, int],
    begins: Mapping[str, Mapping[int, int]],
    *,
    drained: bool,
) -> SimulationReport:
    async with connected(settings) as client:
        rows = await stored_events.rows(client, plan.seed, wanted.known)
        letters = await stored_events.dead_letters(client, plan.seed)
    return SimulationReport(
        seed=plan.seed,
        sent=sender.counters.due,
        requests=sender.counters.requests,
        acknowledged=sender.counters.acknowledged,
        unacknowledged=wanted.unacknowledged,
        lost_answers=sender.counters.lost_answers,
        answers=dict(sender.counters.answers),
        unique=len(wanted.events),
        already_stored=len(wanted.events & before.keys()),
        duplicates_dropped=await _duplicates(settings, begins[topics.ACCOUNT]),
        dead_lettered=len(wanted.dead_letters & letters.keys()),
        lost=comparison.missing(wanted, rows, letters),
        doubled=comparison.doubled(wanted, rows, letters),
        doubled_messages=comparison.more_than_once(wanted, await _messages(settings, begins[topics.EVENTS])),
        delay_p50_s=comparison.quantile(visibility.delays_s, 0.5),
        delay_p99_s=comparison.quantile(visibility.delays_s, 0.99),
        delay_samples=len(visibility.delays_s),
        drained=drained,
    )


async def _messages(settings: Settings, begins: Mapping[int, int]) -> Counter[fleet.Identity]:
    """Count each event's records on the topic since `begins`."""
    found: Counter[fleet.Identity] = Counter()
    async with aclosing(topic_reader.records(settings, topics.EVENTS, begins)) as batches:
        async for _, batch in batches:
            for record in batch:
                m = _message(record.value)
                found[m.imei, times.parse(m.device_time), m.event, m.geofence_name] += 1
    return found


async def _duplicates(settings: Settings, begins: Mapping[int, int]) -> int:
    """Count the duplicates that the stream stage has dropped since `begins`."""
    total = 0
    async with aclosing(topic_reader.records(settings, topics.ACCOUNT, begins)) as batches:
        async for _, batch in batches:
            total += sum(count.duplicate for record in batch for count in account.decode(record.value).counts)
    return total


def _ends(offsets: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    return {partition: end for partition, (_, end) in offsets.items()}
