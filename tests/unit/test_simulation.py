"""The simulated sender, and the comparison of what it sent with what was stored."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice

import pytest
from aiohttp import web

from embedded.preflight import free_ports
from eventpush.simulation import comparison
from eventpush.simulation.fleet import ExpectedOutcome, PlannedEvent, generate
from eventpush.simulation.sender import Delivery, Sender


@asynccontextmanager
async def receiver(answer: Callable[[int], int]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that answers the n-th request with `answer(n)`; yield its URL and the bodies answered with 200."""
    accepted: list[bytes] = []
    requests = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        status = answer(requests)
        body = await request.read()
        if status == 200:
            accepted.append(body)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/api/events", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/api/events", accepted
    finally:
        await runner.cleanup()


def plan(count: int) -> list[PlannedEvent]:
    return list(islice(generate(1, 5), count))


async def send(url: str, events: list[PlannedEvent], *, lost_answers: float = 0, give_up_after_s: float = 30) -> Sender:
    sender = Sender(url, headers={}, seed=1, lost_answers=lost_answers)
    await sender.send(events, 2_000, give_up_after_s)
    return sender


async def test_anything_but_200_is_repeated() -> None:
    """Every event is eventually acknowledged, whatever the answers before; each is accepted once."""
    async with receiver(lambda n: 200 if n % 2 else (503, 500, 429, 404, 301, 204)[n // 2 % 6]) as (url, accepted):
        sender = await send(url, events := plan(60))
    assert sender.counters.acknowledged == 60
    assert sender.counters.requests > 60
    assert sorted(accepted) == sorted(event.body for event in events)


async def test_lost_answers_are_repeated() -> None:
    """A request whose answer is lost is retried, so the receiver gets more requests than events, never fewer."""
    async with receiver(lambda _: 200) as (url, accepted):
        sender = await send(url, events := plan(60), lost_answers=0.3)
    assert sender.counters.lost_answers > 5
    assert set(accepted) == {event.body for event in events}
    assert len(accepted) > 60


async def test_a_device_keeps_its_order() -> None:
    """One device's events are first accepted in the planned order, in spite of retries."""
    async with receiver(lambda n: 200 if n % 3 else 503) as (url, accepted):
        events = plan(120)
        await send(url, events, lost_answers=0.1)
    device = {event.body: event.imei for event in events}
    seen: defaultdict[str, list[bytes]] = defaultdict(list)
    for body in dict.fromkeys(accepted):
        seen[device[body]].append(body)
    for imei, bodies in seen.items():
        assert bodies == list(dict.fromkeys(event.body for event in events if event.imei == imei))


async def test_the_sender_gives_up_in_the_end() -> None:
    """An event never answered 200 is unacknowledged, and the rest of its device's queue is not sent."""
    async with receiver(lambda _: 503) as (url, accepted):
        async with asyncio.timeout(10):
            sender = await send(url, plan(20), give_up_after_s=0.5)
    assert (accepted, sender.counters.acknowledged) == ([], 0)
    assert comparison.expected(sender.deliveries).unacknowledged == 20


VALID = PlannedEvent("1", b"valid", ExpectedOutcome.VALID, ("1", 1, "sos", None))
OTHER = PlannedEvent("1", b"other", ExpectedOutcome.VALID, ("1", 2, "sos", "Depot"))
REPEAT = PlannedEvent("1", b"again", ExpectedOutcome.REPEAT, VALID.identity)
CONFLICT = PlannedEvent("1", b"conflict", ExpectedOutcome.CONFLICT, VALID.identity)
INVALID = PlannedEvent("1", b"invalid", ExpectedOutcome.INVALID, ("1", 3, "sos", None))


def expected(*events: PlannedEvent, acknowledged: bool = True) -> comparison.Expected:
    return comparison.expected(Delivery(event, 1.0, 2.0 if acknowledged else 0.0, 1) for event in events)


def test_what_is_stored_once_is_neither_lost_nor_doubled() -> None:
    """A valid event and its repeat are one row; a conflict and an invalid event are dead letters."""
    wanted = expected(VALID, REPEAT, OTHER, CONFLICT, INVALID)
    rows, letters = {VALID.identity: 1, OTHER.identity: 1}, {"conflict": 1, "invalid": 1}
    assert comparison.missing(wanted, rows, letters) == 0
    assert comparison.doubled(wanted, rows, letters) == 0


@pytest.mark.parametrize("gone", [VALID, OTHER, CONFLICT, INVALID])
def test_what_was_acknowledged_and_is_in_no_table_is_lost(gone: PlannedEvent) -> None:
    """Each kind of event counts."""
    rows = {event.identity: 1 for event in (VALID, OTHER) if event is not gone}
    letters = {event.body.decode(): 1 for event in (CONFLICT, INVALID) if event is not gone}
    assert comparison.missing(expected(VALID, OTHER, CONFLICT, INVALID), rows, letters) == 1


def test_what_was_not_acknowledged_may_be_there_once() -> None:
    """Its outcome is unknown: it may be missing or present once, but not twice."""
    wanted = expected(VALID, acknowledged=False)
    assert comparison.missing(wanted, {}, {}) == 0
    assert comparison.doubled(wanted, {VALID.identity: 1}, {}) == 0
    assert comparison.doubled(wanted, {VALID.identity: 2}, {}) == 1


def test_doubles_are_counted_in_each_place() -> None:
    """Two rows, two dead letters, two messages; other senders' events do not count."""
    wanted = expected(VALID, INVALID)
    assert comparison.doubled(wanted, {VALID.identity: 3, OTHER.identity: 2}, {"invalid": 2, "elsewhere": 5}) == 2
    assert comparison.more_than_once(wanted, Counter({VALID.identity: 2, OTHER.identity: 2})) == 1


def test_quantiles() -> None:
    """The smallest value that the share of all values does not exceed; None without values."""
    assert comparison.quantile([], 0.5) is None
    assert comparison.quantile([3.0], 0.99) == 3.0
    assert comparison.quantile(map(float, range(100)), 0.99) == 99.0
