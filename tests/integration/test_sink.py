"""The sink between real Kafka and real ClickHouse: each event a row, once, whatever dies, is away or is wrong."""

import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest
from aiohttp import web

from embedded.preflight import free_ports
from runtime.kafka.topic_admin import ensure_topics
from runtime.platform.settings import Settings, load
from schemas import times, topics
from schemas.dead_letter import Conflict
from schemas.event import Event
from sinks.clickhouse_connection import connect
from sinks.migrator import migrate
from tests import stack
from tests.integration.sink_process import POINTS
from tests.integration.sink_support import SinkHarness, ask, execute, until
from tests.unit.test_sink_row_encoder import dead_letter, event

START_US = 1_719_597_133_000_001


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Kafka]:
    """A broker whose topics no other test uses."""
    kafka = stack.Kafka.at(tmp_path_factory.mktemp("kafka"))
    kafka.start()
    yield kafka
    kafka.end_if_running()


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.ClickHouse]:
    """A ClickHouse that may be ended and started again."""
    clickhouse = stack.ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    clickhouse.start()
    yield clickhouse
    clickhouse.end_if_running()


@pytest.fixture
async def harness(
    kafka: stack.Kafka, clickhouse: stack.ClickHouse, tmp_path_factory: pytest.TempPathFactory
) -> SinkHarness:
    """Both, with all topics and tables."""
    if clickhouse.process is None:
        clickhouse.start()
    harness = SinkHarness(kafka.bootstrap, clickhouse.url, tmp_path_factory.mktemp("sink"))
    await ensure_topics(harness.settings)
    client = await connect(harness.settings)
    await migrate(client, harness.settings)
    await client.close()
    return harness


@pytest.fixture
def imei() -> str:
    """A device of this test's own."""
    return str(uuid4().int)[:15]


def events(imei: str, count: int) -> list[Event]:
    """Different events of one device, a second apart."""
    return [
        event(imei=imei, event_id=str(uuid4()), changes=n, device_time=times.rfc3339(START_US + n * 1_000_000))
        for n in range(count)
    ]


async def test_an_event_is_a_row(harness: SinkHarness, imei: str) -> None:
    """All columns right, read through the view; a dead letter and a conflict likewise."""
    sent = event(imei=imei, event_id=str(uuid4()), vehicle="MP09 AB 1234", geofence_name="Depot")
    twin = dead_letter(dead_letter_id=str(uuid4()), imei=imei, conflict_with=Conflict(sent.event_id))
    with harness.running():
        await harness.publish([sent])
        await harness.publish([twin], topics.DEAD_LETTER)
        await harness.stored(imei, 1)
        (row,) = await ask(
            harness.clickhouse, f"SELECT * EXCEPT inserted_at FROM telematics.events WHERE imei = '{imei}'"
        )
        assert row == {
            **msgspec.structs.asdict(sent),
            "device_time": "2024-06-28 17:52:13.000001",
            "server_time": "2024-06-28 18:49:45.000000",
            "received_at": "2024-06-28 18:49:46.123456",
            "device_time_local": "2024-06-28 23:22:13.000001",
            "h3_r7": int(sent.h3_r7, 16),
            "h3_r9": int(sent.h3_r9, 16),
            "extra": '{"Speed":81.5}',
            "raw": {"topic": "telematics.raw.v1", "partition": 3, "offset": 2**40},
        }
        conflict = f"SELECT * FROM telematics.conflicts WHERE event_id = '{sent.event_id}'"
        (beside,) = await until("the conflict", lambda: ask(harness.clickhouse, conflict))
        assert (beside["accepted_changes"], beside["refused_payload"]) == (50, '{"Event": ""}')
        (letter,) = await ask(
            harness.clickhouse, f"SELECT * FROM telematics.dead_letters WHERE dead_letter_id = '{twin.dead_letter_id}'"
        )
        assert [reason["code"] for reason in letter["reasons"]] == ["missing", "empty"]
        assert UUID(letter["conflict_with_event_id"]) == UUID(sent.event_id)


async def test_a_repeat_beyond_every_window_is_shown_once(harness: SinkHarness, imei: str) -> None:
    """The same identity in two inserts: readers of the view see the first arrival, before and after any merge."""
    first = event(imei=imei, event_id=str(uuid4()), changes=1)
    later = msgspec.structs.replace(first, changes=2, received_at="2024-06-29T18:49:46.000000Z")
    no_name, empty_name = (
        msgspec.structs.replace(first, event_id=str(uuid4()), geofence_name=name) for name in (None, "")
    )
    with harness.running():
        await harness.publish([later, no_name, empty_name])
        await harness.stored(imei, 3)
        await harness.publish([first])

        async def replaced() -> bool:
            found = await ask(
                harness.clickhouse, f"SELECT changes FROM telematics.events WHERE event_id = '{first.event_id}'"
            )
            return found == [{"changes": 1}]

        await until("the first arrival", replaced)
    assert (await harness.counts(imei))[0] == 3
    await execute(harness.clickhouse, "OPTIMIZE TABLE telematics.events_store FINAL")
    assert await harness.counts(imei) == (3, 3)
    assert await replaced()


@pytest.mark.parametrize("point", [point for point in POINTS if "dead letters" not in point])
async def test_killed_at(harness: SinkHarness, imei: str, point: str) -> None:
    """Killed with -9 there: the next sink takes up exactly what was planned, and no row is stored a second time."""
    sent = events(imei, 1_500)
    await harness.publish(sent)
    await harness.dies_at(point)
    with harness.running(EVENTPUSH_SINK_BATCH_MAX_ROWS="333"):
        await harness.stored(imei, len(sent))
        await harness.publish(more := events(imei, 10))  # the pipeline goes on
        await harness.stored(imei, len(sent) + len(more))
    assert await harness.counts(imei) == (1_510, 1_510)


async def test_a_token_without_its_rows(harness: SinkHarness, imei: str) -> None:
    """ClickHouse knows an insert's token but lacks its rows: a sink that finds the plan unfinished inserts them again.

    That is what a kill leaves behind between the token's record and the part's (see `sinks.missing_rows`); a mutation
    that removes the rows leaves the same.
    """
    sent = events(imei, 200)
    await harness.publish(sent, at_once=200)
    await harness.dies_at("between insert and commit")
    remove = f"ALTER TABLE telematics.events_store DELETE WHERE imei = '{imei}' SETTINGS mutations_sync = 2"
    await execute(harness.clickhouse, remove)
    assert await harness.counts(imei) == (0, 0)
    with harness.running(allowed="lacks rows"):
        await harness.stored(imei, 200)
    assert await harness.counts(imei) == (200, 200)


async def test_clickhouse_away(harness: SinkHarness, clickhouse: stack.ClickHouse, imei: str) -> None:
    """Killed under way and away for a while: the sink waits, says so, and catches up; nothing is lost or doubled."""
    sent = events(imei, 3_000)
    with harness.running(allowed="insert failed; retrying|ClickHouse is not ready") as sink:
        await harness.publish(sent[:1_000])
        await harness.stored(imei, 1)
        clickhouse.end(signal.SIGKILL)
        await harness.publish(sent[1_000:])

        async def says_so() -> bool:
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{harness.metrics_port}"
                async with session.get(f"{url}/readyz") as ready, session.get(f"{url}/metrics") as metrics:
                    failed = (await ready.json()).get("failed", {})
                    return "clickhouse" in failed and "eventpush_sink_retries_total" in await metrics.text()

        await until("the sink says that ClickHouse is away", says_so)
        assert sink.poll() is None
        clickhouse.start()
        await harness.stored(imei, 3_000)
    assert await harness.counts(imei) == (3_000, 3_000)


async def test_stopped_while_clickhouse_is_away(harness: SinkHarness, clickhouse: stack.ClickHouse, imei: str) -> None:
    """SIGTERM ends the sink although it cannot finish; the next one stores what it had planned."""
    sent = events(imei, 100)
    with harness.running(allowed="insert failed; retrying|ClickHouse is not ready|batch still in progress"):
        await harness.publish(sent[:1])
        await harness.stored(imei, 1)
        clickhouse.end(signal.SIGKILL)
        await harness.publish(sent[1:])

        async def waits() -> bool:
            return b"insert failed; retrying" in (harness.work_dir / "sink.log").read_bytes()

        await until("the sink waits for ClickHouse", waits)
    clickhouse.start()
    with harness.running():
        await harness.stored(imei, 100)
    assert await harness.counts(imei) == (100, 100)


async def test_a_lost_answer(harness: SinkHarness, imei: str, losing_answers: str) -> None:
    """ClickHouse has the rows but its answer is lost: the same insert again stores nothing."""
    sent = events(imei, 1_000)
    await harness.publish(sent)
    with harness.running(allowed="insert failed; retrying", EVENTPUSH_CLICKHOUSE_URL=losing_answers):
        await harness.stored(imei, 1_000)
        await harness.publish(more := events(imei, 1))
        await harness.stored(imei, 1_000 + len(more))
    assert b"insert failed; retrying" in (harness.work_dir / "sink.log").read_bytes()
    assert await harness.counts(imei) == (1_001, 1_001)


@pytest.fixture
async def losing_answers(harness: SinkHarness) -> AsyncIterator[str]:
    """An address in front of ClickHouse that passes everything on, but loses the first two answers to an insert."""
    left = iter(range(2))
    session = aiohttp.ClientSession(auto_decompress=False)

    async def forward(request: web.Request) -> web.Response:
        body = await request.read()
        async with session.request(
            request.method, harness.clickhouse + request.path_qs, data=body, headers=request.headers
        ) as answer:
            payload = await answer.read()
        if b"events_store" in request.path_qs.encode() + body[:200] and next(left, None) is not None:
            assert request.transport is not None
            request.transport.abort()
        kept = {name: value for name, value in answer.headers.items() if name.startswith("X-ClickHouse")}
        return web.Response(body=payload, status=answer.status, headers=kept)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{any:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
    await session.close()


@pytest.fixture
async def refusing(harness: SinkHarness, imei: str) -> AsyncIterator[str]:
    """A ClickHouse that refuses rows whose `changes` is 666."""
    with harness.running():
        await harness.publish(events(imei, 1))
        await harness.stored(imei, 1)  # the tables are there
    table = "ALTER TABLE telematics.events_store"
    await execute(harness.clickhouse, f"{table} ADD CONSTRAINT no_poison CHECK changes != 666")
    yield imei
    await execute(harness.clickhouse, f"{table} DROP CONSTRAINT no_poison")


@pytest.mark.parametrize("point", [None, "before the dead letters", "right after the dead letters"])
async def test_a_poison_row(harness: SinkHarness, refusing: str, point: str | None) -> None:
    """Itself a dead letter, once, also when the sink is killed there; its neighbours are stored; the rest goes on."""
    imei = refusing
    sent: list[Any] = [*events(imei, 300), b"{no event}"]
    poison = sent[200] = msgspec.structs.replace(sent[200], changes=666)
    await harness.publish(sent, at_once=301)
    if point is not None:
        await harness.dies_at(point)
    with harness.running(allowed="ClickHouse refused a row"):
        await harness.stored(imei, 1 + 299)
        mine = f"FROM telematics.dead_letters_store WHERE position(payload, '{imei}') > 0 OR payload = '{{no event}}'"
        dead = await until("its dead letter", lambda: ask(harness.clickhouse, f"SELECT * {mine} AND imei = '{imei}'"))
    assert await harness.counts(imei) == (300, 300)
    assert [(letter["stage"], letter["imei"], letter["reasons"][0]["code"]) for letter in dead] == [
        ("sink", imei, "refused_by_clickhouse")
    ]
    assert dead[0]["payload"].encode() == msgspec.json.encode(poison)
    seen = [letter for letter in await harness.read_all(topics.DEAD_LETTER) if letter["stage"] == "sink"]
    ids = [letter["dead_letter_id"] for letter in seen]
    assert len(ids) == len(set(ids))
    assert sum(letter["imei"] == imei for letter in seen) == 1


async def test_workers_come_and_go(harness: SinkHarness, imei: str) -> None:
    """A second sink joins, the first is killed: the partitions move, under way or not, and nothing is doubled."""
    sent = events(imei, 6_000)
    first = harness.start()
    second = None
    try:
        for i in range(6):
            await harness.publish(sent[i * 1_000 : (i + 1) * 1_000])
            if i == 1:
                second = harness.start(EVENTPUSH_SINK_METRICS_PORT=str(free_ports(1)[0]))
            if i == 4:
                first.kill()
        await harness.stored(imei, 6_000)
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
    assert await harness.counts(imei) == (6_000, 6_000)


async def test_the_next_server_takes_over(
    harness: SinkHarness, tmp_path_factory: pytest.TempPathFactory, imei: str
) -> None:
    """Of two servers the sink uses the first; when that is killed, the second, and back; no row is lost or doubled."""
    servers = [stack.ClickHouse(tmp_path_factory.mktemp(name)) for name in ("first", "second")]
    try:
        for server in servers:
            server.start()
            client = await connect(settings_of(server))
            await migrate(client, settings_of(server))
            await client.close()

        async def stored(server: stack.ClickHouse) -> int:
            where = f"FROM telematics.events_store WHERE imei = '{imei}'"
            return int((await ask(server.url, f"SELECT toInt32(count()) AS n {where}"))[0]["n"])

        async def gains(server: stack.ClickHouse, rows: int) -> None:
            async def enough() -> bool:
                return await stored(server) == rows

            await until(f"{rows} rows", enough)

        urls = ",".join(server.url for server in servers)
        with harness.running(EVENTPUSH_CLICKHOUSE_URL=urls, allowed="insert failed; retrying"):
            await harness.publish(events(imei, 100))
            await gains(servers[0], 100)
            servers[0].end(signal.SIGKILL)
            await harness.publish(events(imei, 200))
            await gains(servers[1], 200)
            servers[0].start()
            servers[1].end(signal.SIGKILL)
            await harness.publish(events(imei, 50))
            await gains(servers[0], 150)
            servers[1].start()
            assert await stored(servers[1]) == 200
    finally:
        for server in servers:
            server.end_if_running()


def settings_of(server: stack.ClickHouse) -> Settings:
    """The settings with which a command reaches this server."""
    return load({"EVENTPUSH_CLICKHOUSE_URL": server.url})
