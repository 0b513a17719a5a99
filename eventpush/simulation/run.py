"""A simulation from beginning to verdict: send, watch, wait for the pipeline to drain, count."""

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

from eventpush import kafka
from eventpush.clickhouse import connected
from eventpush.simulation import fleet, stored, verdict
from eventpush.simulation.sender import Sender
from eventpush.simulation.visibility import Visibility
from runtime.errors import Problem
from runtime.settings import Settings
from schemas import account, times, topics

_POLL_S = 0.5


@dataclass(frozen=True)
class Plan:
    """What to simulate."""

    url: str
    devices: int
    rate: float  # events a second
    duration_s: float
    seed: int
    shares: fleet.Shares
    lost_answers: float  # share of the requests
    token: str | None
    ca_file: Path | None  # of the URL's certificate, where the system's do not do
    patience_s: float  # how long to wait for a pipeline that does not advance


class Report(msgspec.Struct, frozen=True):
    """What came of it. `sent` = `unique` + repeats + `dead_lettered` + `unacknowledged` + what is lost."""

    seed: int
    sent: int  # events, each counted once however often it was posted
    requests: int
    acknowledged: int
    unacknowledged: int  # never answered 200: the sender would go on
    lost_answers: int
    answers: dict[str, int]
    unique: int  # identities that must be stored
    already_stored: int  # of these, before the run began
    duplicates_dropped: int  # by the stream stage since the run began, whoever sent them
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
        """Nothing lost, nothing doubled."""
        return self.lost == 0 and self.doubled == 0 and self.doubled_messages == 0


class _Message(msgspec.Struct, gc=False):
    """What identifies an event on the topic."""

    imei: str
    device_time: str
    event: str
    geofence_name: str | None


_message = msgspec.json.Decoder(_Message).decode


async def simulate(settings: Settings, plan: Plan, on_progress: Callable[[str], None]) -> Report:
    """Run the plan; `on_progress` gets a line each second. Raise `Problem` if a service is unreachable."""
    await _reachable(plan.url)
    events = list(islice(fleet.generate(plan.seed, plan.devices, plan.shares), round(plan.rate * plan.duration_s)))
    begins = {topic: _ends(await kafka.offsets(settings, topic)) for topic in (topics.EVENTS, topics.ACCOUNT)}
    async with connected(settings) as client:
        before = await stored.rows(client, plan.seed, [event.identity for event in events])
    headers = {"Authorization": f"Bearer {plan.token}"} if plan.token else {}
    tls = ssl.create_default_context(cafile=plan.ca_file) if plan.ca_file else None
    sender = Sender(plan.url, headers=headers, seed=plan.seed, lost_answers=plan.lost_answers, ssl_context=tls)
    visibility = Visibility(settings, sender, plan.rate)
    beside = [asyncio.create_task(visibility.watch()), asyncio.create_task(_progress(sender, visibility, on_progress))]
    try:
        await sender.send(events, plan.rate, plan.patience_s)
        on_progress("all sent: waiting for the pipeline to drain")
        wanted = verdict.expected(sender.deliveries)
        drained = await _drained(settings, plan, wanted)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    return await _report(settings, plan, sender, visibility, wanted, before, begins, drained=drained)


async def _reachable(url: str) -> None:
    where = urlsplit(url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise Problem(f"--url {url} is no address of an HTTP server", "write it as http://host:8080/api/events")
    try:
        port = where.port or (443 if where.scheme == "https" else 80)
        _, writer = await asyncio.open_connection(where.hostname, port)
    except OSError as error:
        raise Problem(
            f"nothing answers at --url {url} ({error.strerror or error})",
            "start `eventpush up`, or `eventpush ingress`",
        ) from None
    writer.close()
    await writer.wait_closed()


async def _progress(sender: Sender, visibility: Visibility, on_progress: Callable[[str], None]) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(1)
        tally = sender.tally
        p50 = verdict.quantile(visibility.delays_s[-100:], 0.5)
        on_progress(
            f"{time.monotonic() - began:4.0f} s  {tally.due} due  {tally.acknowledged} acknowledged  "
            f"{tally.requests} requests  {tally.lost_answers} answers lost  "
            f"{tally.due - tally.acknowledged} waiting" + (f"  visible after {p50:.2f} s" if p50 is not None else "")
        )


async def _drained(settings: Settings, plan: Plan, wanted: verdict.Expected) -> bool:
    """Wait until the stream stage has read all raw records and ClickHouse shows everything expected.

    False when neither has advanced for `patience_s`.
    """
    raw_ends = _ends(await kafka.offsets(settings, topics.RAW))
    left, since = None, time.monotonic()
    while time.monotonic() - since < plan.patience_s:
        done = await kafka.committed(settings, settings.streams_app_id, topics.RAW)
        lag = sum(max(0, end - done.get(partition, 0)) for partition, end in raw_ends.items())
        async with connected(settings) as client:
            rows = await stored.rows(client, plan.seed, wanted.events)
            letters = await stored.dead_letters(client, plan.seed)
        now_left = lag + verdict.missing(wanted, rows, letters)
        if now_left == 0:
            return True
        if now_left != left:
            left, since = now_left, time.monotonic()
        await asyncio.sleep(_POLL_S)
    return False


async def _report(
    settings: Settings,
    plan: Plan,
    sender: Sender,
    visibility: Visibility,
    wanted: verdict.Expected,
    before: Mapping[fleet.Identity, int],
    begins: Mapping[str, Mapping[int, int]],
    *,
    drained: bool,
) -> Report:
    async with connected(settings) as client:
        rows = await stored.rows(client, plan.seed, wanted.known)
        letters = await stored.dead_letters(client, plan.seed)
    return Report(
        seed=plan.seed,
        sent=sender.tally.due,
        requests=sender.tally.requests,
        acknowledged=sender.tally.acknowledged,
        unacknowledged=wanted.unacknowledged,
        lost_answers=sender.tally.lost_answers,
        answers=dict(sender.tally.answers),
        unique=len(wanted.events),
        already_stored=len(wanted.events & before.keys()),
        duplicates_dropped=await _duplicates(settings, begins[topics.ACCOUNT]),
        dead_lettered=len(wanted.dead_letters & letters.keys()),
        lost=verdict.missing(wanted, rows, letters),
        doubled=verdict.doubled(wanted, rows, letters),
        doubled_messages=verdict.more_than_once(wanted, await _messages(settings, begins[topics.EVENTS])),
        delay_p50_s=verdict.quantile(visibility.delays_s, 0.5),
        delay_p99_s=verdict.quantile(visibility.delays_s, 0.99),
        delay_samples=len(visibility.delays_s),
        drained=drained,
    )


async def _messages(settings: Settings, begins: Mapping[int, int]) -> Counter[fleet.Identity]:
    """How often each event stands on the topic since `begins`."""
    found: Counter[fleet.Identity] = Counter()
    async with aclosing(kafka.records(settings, topics.EVENTS, begins)) as batches:
        async for _, batch in batches:
            for record in batch:
                m = _message(record.value)
                found[m.imei, times.parse(m.device_time), m.event, m.geofence_name] += 1
    return found


async def _duplicates(settings: Settings, begins: Mapping[int, int]) -> int:
    """How many duplicates the stream stage has dropped since `begins`."""
    total = 0
    async with aclosing(kafka.records(settings, topics.ACCOUNT, begins)) as batches:
        async for _, batch in batches:
            total += sum(count.duplicate for record in batch for count in account.decode(record.value).counts)
    return total


def _ends(offsets: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    return {partition: end for partition, (_, end) in offsets.items()}
