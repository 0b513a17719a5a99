"""The event stream, with a double for its Kafka consumer: what is refused, what is sent, and who is disconnected."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition
from prometheus_client import REGISTRY

from embedded import preflight
from eventpush.sse import client, stream
from eventpush.sse.request import Position, position_of, query_of
from eventpush.sse.service import run
from eventpush.sse.stream import EventStream
from eventpush.topic_reader import TopicMissingError
from ingress.access.tokens import Tokens
from runtime.platform import health
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, load
from schemas.topics import EVENTS, of_type
from tests.sse_reader import TOKEN, Message, SseReader


class Record:
    def __init__(self, offset: int, value: bytes | None) -> None:
        self.offset, self.value = offset, value


class Consumer:
    """A topic of two partitions that begins at offset 10; `log` has the values of the first one."""

    def __init__(self, log: list[bytes]) -> None:
        self._log = log
        self._next = 0
        self._begin = 10
        self.partitions = 2
        self.markers = 0  # offsets after the last record that no reader sees

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(zip(partitions, (self._begin + len(self._log), 7), strict=True))

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(zip(partitions, (self._begin, 0), strict=True))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition.partition == 0:
            self._next = offset - self._begin

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return set(range(self.partitions))

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", 0)]

    async def position(self, _partition: TopicPartition) -> int:
        return self._begin + self._next + (self._next == len(self._log)) * self.markers

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Record]]:
        if self._next < 0:
            raise OffsetOutOfRangeError
        if self._next == len(self._log):
            await asyncio.sleep(0.01)
            return {}
        values = self._log[self._next : self._next + max_records]
        records = [Record(self._begin + self._next + n, value) for n, value in enumerate(values)]
        self._next += len(records)
        return {TopicPartition("t", 0): records}


class Kafka:
    """What `consumer_of` gives: a consumer for each client; or it fails."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.failure: Exception | None = None
        self.topics: list[str] = []
        self.consumers: list[Consumer] = []

    @asynccontextmanager
    async def consumer_of(self, _settings: Settings, topic: str, **_: Any) -> AsyncIterator[tuple[Any, Any]]:
        self.topics.append(topic)
        if self.failure is not None:
            raise self.failure
        self.consumers.append(Consumer(self.log))
        yield self.consumers[-1], [TopicPartition(topic, 0), TopicPartition(topic, 1)]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    double = Kafka()
    monkeypatch.setattr(stream, "consumer_of", double.consumer_of)
    return double


@asynccontextmanager
async def serving(tokens: Tokens | None = None, **settings: Any) -> AsyncIterator[int]:
    """The event stream on a free port, with one token unless others are given."""
    (port,) = preflight.free_ports(1)
    loaded = load({"EVENTPUSH_SSE_TOKENS": f"tests {TOKEN}"}).model_copy(update=settings)
    events = EventStream(loaded, tokens or Tokens(loaded, "sse_tokens"))
    runner = await health.start(port, {}, routes=[web.get(stream.PATH, events.handle, allow_head=False)])
    try:
        yield port
    finally:
        await events.stop()
        await health.stop(runner)


async def connect(port: int, last_id: str = "", **options: Any) -> SseReader:
    """A reader whose request has been answered."""
    return await asyncio.to_thread(SseReader, port, last_id, **options)


async def read(reader: SseReader, count: int) -> list[Message]:
    """The next events."""
    return await asyncio.to_thread(list, itertools.islice(reader, count))


async def refused(port: int, query: str = "", **headers: str) -> tuple[int, str]:
    """Status and text of the answer to a request with a good token."""
    given = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}{stream.PATH}{query}", headers=given) as answer,
    ):
        return answer.status, await answer.text()


def disconnects(reason: str) -> float:
    return REGISTRY.get_sample_value("eventpush_sse_disconnects_total", {"reason": reason}) or 0.0


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic dGVzdHM6dGVzdHM=", f"Bearer {TOKEN}x"])
async def test_only_a_good_token_gets_events(kafka: Kafka, authorization: str) -> None:
    """Anything else is 401 and reads nothing, also not whether a topic exists."""
    async with serving() as port:
        status, text = await refused(port, "?type=sos", Authorization=authorization)
    assert (status, kafka.topics) == (401, [])
    assert "Bearer" in text or "bearer" in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://other.example"},
    ],
)
async def test_pages_of_other_sites_are_refused(kafka: Kafka, headers: dict[str, str]) -> None:
    """With 403, even with a good token, and no header that would let them read the answer."""
    async with serving() as port:
        status, _ = await refused(port, **headers)
    assert (status, kafka.topics) == (403, [])


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("?where=flet%20==%201", "no field flet; fields are event_id"),
        ("?where=severity%20=%20%27info%27", "is not an expression"),
        ("?where=", "is not an expression"),
        ("?where=9**9**9%20==%201", "compares fields with values"),
        ("?filter=x", "no parameter 'filter'; parameters are type, where"),
        ("?type=%20", "type is empty"),
        ("?type=sos&type=overspeed", "give each parameter once"),
    ],
)
async def test_a_wrong_query_is_400_and_says_what_is_wrong(kafka: Kafka, query: str, why: str) -> None:
    """Before anything is read."""
    async with serving() as port:
        status, text = await refused(port, query)
    assert (status, kafka.topics) == (400, [])
    assert why in text


async def test_a_type_that_never_came_is_404(kafka: Kafka) -> None:
    """Its topic does not exist yet; the answer says when it will."""
    kafka.failure = TopicMissingError("Kafka at k:9092 has no topic telematics.event.flood.v1", "")
    async with serving() as port:
        assert await refused(port, "?type=flood") == (
            404, "Kafka at k:9092 has no topic telematics.event.flood.v1: the first event of a type creates its topic\n"
        )  # fmt: skip


async def test_kafka_away_is_503(kafka: Kafka) -> None:
    """And names no address."""
    kafka.failure = OperatorError("no Kafka at k:9092", "start it")
    async with serving() as port:
        assert await refused(port) == (503, "Kafka does not answer; try later\n")


@pytest.mark.parametrize(
    ("last_id", "status", "why"),
    [
        ("x", 400, "'x' is not an id of this stream"),
        ("1", 410, "partition 0 does not have the events after Last-Event-ID: it begins at 10"),
        ("1-2-3", 400, "is not an id of this stream"),
        ("9-0", 410, "partition 0 does not have the events after Last-Event-ID: it begins at 10"),
        ("10-8", 410, "partition 1 does not have the events after Last-Event-ID: it begins at 0, ends at 7"),
    ],
)
async def test_an_id_that_cannot_be_resumed_is_refused(kafka: Kafka, last_id: str, status: int, why: str) -> None:
    """One of another stream, and one whose next events Kafka has deleted: nothing is skipped in silence."""
    async with serving() as port:
        found, text = await refused(port, Last_Event_ID=last_id)
    assert found == status
    assert why in text


async def test_a_client_resumes_after_its_last_event(kafka: Kafka) -> None:
    """New clients get what comes from now on; with an id, all that came since; a value is not changed."""
    kafka.log.append(b'{"old":1}')
    async with serving() as port:
        with await connect(port, type="sos") as reader:
            kafka.log += [b'{"n":1}', '{"n":"\u2028é"}'.encode()]
            assert await read(reader, 2) == [
                Message("message", "12-7", '{"n":1}'), Message("message", "13-7", '{"n":"\u2028é"}')
            ]  # fmt: skip
        kafka.log.append(b'{"n":3}')
        with await connect(port, "12-7", type="SOS") as reader:
            assert [message.data for message in await read(reader, 2)] == ['{"n":"\u2028é"}', '{"n":3}']
    assert kafka.topics == [of_type("sos")] * 2


async def test_a_filter_moves_the_id_past_what_it_leaves_out(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id comes alone, which is no event, so that a client of a rare event does not read all again, or too late."""
    monkeypatch.setattr(client, "_POSITION_S", 0)
    async with serving() as port:
        with await connect(port, where='severity == "critical"') as reader:
            kafka.log += [b'{"severity":"info"}', b"no JSON", b'{"severity":"info"}']
            ids = await asyncio.to_thread(lambda: next(line for line in reader.lines() if line == "id: 13-7"))
            assert ids
            kafka.log.append(b'{"severity":"critical"}')
            assert await read(reader, 1) == [Message("message", "14-7", '{"severity":"critical"}')]
    assert kafka.topics == [EVENTS]


async def test_the_id_moves_past_the_end_of_a_transaction(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka may delete the last record and the marker behind it: whoever has the record can still resume."""
    monkeypatch.setattr(client, "_POSITION_S", 0)
    async with serving() as port:
        with await connect(port) as reader:
            kafka.consumers[0].markers = 1
            kafka.log.append(b"{}")
            assert await read(reader, 1) == [Message("message", "11-7", "{}")]
            assert await asyncio.to_thread(lambda: next(line for line in reader.lines() if line == "id: 12-7"))


async def test_a_slow_client_is_disconnected_and_another_gets_all(kafka: Kafka) -> None:
    """What the slow one does not take is not read ahead for it; the reason is in the metric."""
    slow_before = disconnects("slow")
    async with serving(sse_send_timeout_s=0.5) as port:
        with await connect(port, receive_bytes=4_096), await connect(port) as other:
            kafka.log += [b'{"n":%d,"filler":"%s"}' % (n, b"x" * 10_000) for n in range(300)]
            found = await read(other, 300)
            await until(lambda: disconnects("slow") == slow_before + 1)
            assert kafka.consumers[0]._next < 300
    assert [message.data for message in found] == [value.decode() for value in kafka.log]


async def test_a_client_that_was_slow_reads_why(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it reads on soon: the last event is the reason, and the id is that of the last whole event."""
    monkeypatch.setattr(client, "_FAREWELL_S", 30)
    slow_before = disconnects("slow")
    async with serving(sse_send_timeout_s=0.5) as port:
        with await connect(port, receive_bytes=4_096) as reader:
            kafka.log += [b'{"n":%d,"filler":"%s"}' % (n, b"x" * 10_000) for n in range(300)]
            await until(lambda: disconnects("slow") == slow_before + 1)
            *events, last = await asyncio.to_thread(list, reader)
    assert last == Message("disconnected", events[-1].last_id, "the connection took nothing for 0.5 s")
    assert [message.data for message in events] == [value.decode() for value in kafka.log[: len(events)]]


async def test_a_client_behind_the_retention_reads_why(kafka: Kafka) -> None:
    """Its next events are deleted while it reads: it is disconnected, not moved on in silence."""
    async with serving() as port:
        with await connect(port) as reader:
            kafka.consumers[0]._next = -1
            ((event, _, text),) = await asyncio.to_thread(list, reader)
    assert (event, text) == ("disconnected", "the next events are not in Kafka any more: the connection was too slow")


async def test_a_client_reconnects_when_partitions_are_added(kafka: Kafka) -> None:
    """It is cut off with the reason, and its id goes on with the first events of the added ones."""
    kafka.log = [b"{}"]
    async with serving() as port:
        with await connect(port, "10-7") as reader:
            (first,) = await read(reader, 1)
            kafka.consumers[0].partitions = 3
            (last,) = await read(reader, 1)
    assert (first.last_id, last.event) == ("11-7", "disconnected")
    assert last.data == "the topic got more partitions: reconnect"


async def test_a_token_that_ends_ends_its_streams(kafka: Kafka, tmp_path: Path) -> None:
    """It is taken out of the file: the client reads why, without a restart."""
    file = tmp_path / "readers"
    file.write_text(f"leaver {TOKEN}\n")
    tokens = Tokens(load({"EVENTPUSH_SSE_TOKENS_FILE": str(file)}), "sse_tokens")
    async with serving(tokens) as port:
        with await connect(port) as reader:
            file.write_text("other another-token\n")
            for _ in range(2):
                tokens.watcher.poll()
            ((event, _, text),) = await asyncio.to_thread(list, reader)
    assert (event, text) == ("disconnected", "the token is not valid any more")


async def test_clients_are_bounded(kafka: Kafka) -> None:
    """A further one is 503; when one leaves, its place is free."""
    async with serving(sse_clients_max=1) as port:
        with await connect(port):
            status, text = await refused(port)
            assert (status, "EVENTPUSH_SSE_CLIENTS_MAX" in text) == (503, True)
            assert REGISTRY.get_sample_value("eventpush_sse_clients") == 1
        await until(lambda: REGISTRY.get_sample_value("eventpush_sse_clients") == 0)
        with await connect(port) as reader:
            assert reader.response.status == 200


async def test_a_stopping_service_ends_its_streams(kafka: Kafka) -> None:
    """In good order: a client sees the end of the response, not a broken connection."""
    async with serving() as port:
        reader = await connect(port)
    with reader:
        assert await asyncio.to_thread(list, reader) == []


async def test_without_a_token_it_does_not_start() -> None:
    """The message names the settings and the command."""
    with pytest.raises(OperatorError, match=r"EVENTPUSH_SSE_TOKENS nor EVENTPUSH_SSE_TOKENS_FILE .* token new"):
        await run(load({}))


def test_a_position_is_its_text() -> None:
    """The id names the offset that is next, of each partition."""
    position = Position([3, 0, 9])
    position.move(1, 5)
    assert str(position) == "3-5-9"
    assert position_of("3-5-9", 3) == position
    assert position_of("3-5-9", 5) == Position([3, 5, 9, 0, 0])  # partitions were added since


def test_a_query_is_a_type_and_a_filter() -> None:
    """Both together, each alone, or none: all events."""
    query = query_of({"type": "Fuel Drain", "where": "changes > 5"})
    assert (query.topic, query.wants(b'{"changes":6}'), query.wants(b"{}")) == (of_type("fuel_drain"), True, False)
    assert query_of({}).topic == EVENTS
