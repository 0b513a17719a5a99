"""The event stream: a client's request in, committed records as server-sent events out.

Each client has a Kafka consumer of its own, which reads on only when the client has taken what was read: what a client
does not take stays in Kafka. So a slow one costs a bounded amount of memory here, and nothing elsewhere.
"""

import asyncio
import contextlib

import structlog
from aiohttp import hdrs, web
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from eventpush.sse.client import Client
from eventpush.sse.request import Position, Query, position_of, query_of
from eventpush.topic_reader import TopicMissingError, added_partitions, consumer_of
from ingress.access.tokens import Tokens
from ingress.errors import RequestError
from runtime.platform import metrics
from runtime.platform.errors import OperatorError
from runtime.platform.origin import is_cross_site
from runtime.platform.settings import Settings

log = structlog.get_logger()

PATH = "/events/stream"

_RETRY_AFTER_S = 5
_POLL_MS = 500
_STOP_TIMEOUT_S = 3.0
#: What is read ahead for a client: compressed bytes (a larger batch comes whole), and records between two pauses.
_READ_AHEAD = {"max_partition_fetch_bytes": 131_072, "fetch_max_bytes": 524_288}
_RECORDS_MAX = 200


class EventStream:
    """The handler of `GET /events/stream`."""

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self._settings = settings
        self._tokens = tokens
        self._clients = set[Client]()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        metrics.SSE_CLIENTS.metric.set_function(lambda: len(self._clients))
        for reason in ("slow", "token", "expired", "kafka", "partitions"):
            metrics.SSE_DISCONNECTS.metric.labels(reason)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request: with events until either side ends it, or with a refusal."""
        if is_cross_site(request.headers):
            raise web.HTTPForbidden(text="requests of other web sites are not answered\n")
        name, query = self._token_name(request), _query(request)
        if self._stopping or len(self._clients) >= self._settings.sse_clients_max:
            raise _unavailable(f"{len(self._clients)} clients are connected (EVENTPUSH_SSE_CLIENTS_MAX)")
        client = Client(request, name, self._settings.sse_send_timeout_s)
        self._clients.add(client)
        self._idle.clear()
        try:
            await self._serve(request, client, query)
        finally:
            self._clients.discard(client)
            if not self._clients:
                self._idle.set()
        return client.response

    async def stop(self) -> None:
        """End all responses; browsers reconnect, with the id of the last event that they got."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._idle.wait()
        for client in self._clients:
            client.cut_off()

    def _token_name(self, request: web.Request) -> str:
        try:
            return self._tokens.check(request.headers.getall(hdrs.AUTHORIZATION, []))
        except RequestError as error:
            raise web.HTTPUnauthorized(text=f"{error}\n", headers=error.headers) from None

    async def _serve(self, request: web.Request, client: Client, query: Query) -> None:
        try:
            reading = consumer_of(self._settings, query.topic, auto_offset_reset="none", **_READ_AHEAD)
            async with reading as (consumer, partitions):
                position = await _begin(consumer, partitions, request.headers.get("Last-Event-ID"))
                await client.open(position)
                await self._follow(request, client, consumer, query, position, partitions)
        except TopicMissingError as problem:
            raise web.HTTPNotFound(text=f"{problem.what}: the first event of a type creates its topic\n") from None
        except OperatorError as problem:
            log.warning("Kafka does not answer", error=str(problem))
            if not client.response.prepared:
                raise _unavailable("Kafka does not answer") from None
            await client.end("kafka", "Kafka does not answer")

    async def _follow(
        self,
        request: web.Request,
        client: Client,
        consumer: AIOKafkaConsumer,
        query: Query,
        position: Position,
        partitions: list[TopicPartition],
    ) -> None:
        while client.is_open() and not self._stopping:
            try:
                self._token_name(request)
            except web.HTTPUnauthorized:
                await client.end("token", "the token is not valid any more")
                return
            try:
                found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
            except OffsetOutOfRangeError:
                await client.end("expired", "the next events are not in Kafka any more: the connection was too slow")
                return
            for partition, records in found.items():
                for record in records:
                    position.move(partition.partition, record.offset + 1)
                    if record.value is None or not query.wants(record.value):
                        continue
                    if not await client.send(record.value.decode("utf-8", "replace"), position):
                        return
            for partition in consumer.assignment():  # past what ends transactions: Kafka may delete up to there
                position.move(partition.partition, await consumer.position(partition))
            await client.tell(position)
            if added_partitions(consumer, partitions):
                await client.end("partitions", "the topic got more partitions: reconnect")
                return
            await asyncio.sleep(0)  # with a backlog nothing above waits, and other clients have their turn


def _query(request: web.Request) -> Query:
    try:
        return query_of(request.query)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None


async def _begin(consumer: AIOKafkaConsumer, partitions: list[TopicPartition], last_event_id: str | None) -> Position:
    """Seek to where the client's last event ended, by default to the end; return the position."""
    ends = [found[tp] for found in [await consumer.end_offsets(partitions)] for tp in partitions]
    if last_event_id is None:
        position = Position(ends)
    else:
        try:
            position = position_of(last_event_id, len(partitions))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        begins = [found[tp] for found in [await consumer.beginning_offsets(partitions)] for tp in partitions]
        if (lost := position.lost_at(begins, ends)) is not None:
            raise web.HTTPGone(
                text=f"partition {lost} does not have the events after Last-Event-ID: it begins at {begins[lost]}, "
                f"ends at {ends[lost]}; reconnect without the id, and read what is older in ClickHouse\n"
            )
    for tp, offset in zip(partitions, position.offsets, strict=True):
        consumer.seek(tp, offset)
    return position


def _unavailable(text: str) -> web.HTTPServiceUnavailable:
    return web.HTTPServiceUnavailable(text=f"{text}; try later\n", headers={"Retry-After": str(_RETRY_AFTER_S)})
