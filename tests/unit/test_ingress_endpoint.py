"""The ingress's answers over real connections: statuses, bodies, headers, and what is published."""

import asyncio
import contextlib
import gzip
import json
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ingress.errors import STATUS, Rejection
from schemas import topics
from tests.unit.ingress_support import ACCEPTED, BODY, EVENT, read_answer, request, running, settings
from tests.unit.memory_publisher import MemoryPublisher


async def test_an_event_is_accepted_with_the_contracts_body():
    """The sample event: 200, exactly the API's body, one record with key, untouched bytes, arrival and receipt."""
    async with running() as ingress:
        answer = await ingress.post(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        assert (answer.status, answer.body) == (200, ACCEPTED)
        assert answer.headers["content-type"] == "application/json"
        assert "date" in answer.headers
        [record] = ingress.publisher.records
        headers = dict(record.headers)
        assert (record.key, record.value) == (b"350612075195931", BODY)
        assert headers[topics.HEADER_RECEIPT_ID].decode() == answer.headers["x-receipt-id"]
        assert int(headers[topics.HEADER_ARRIVAL_US]) // 1_000 == record.timestamp_ms
        assert headers[topics.HEADER_TRACEPARENT] == b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_several_events_in_one_request():
    """An array and NDJSON: one record each, bytes untouched, the request's receipt id with the event's number."""
    async with running() as ingress:
        for body, media_type in (
            (b'[{"IMEI":"1"} , {"IMEI":"2"}]', "application/json"),
            (b'{"IMEI":"1"}\n{"IMEI":"2"}\n', "application/x-ndjson"),
        ):
            ingress.publisher.records.clear()
            answer = await ingress.post(body, Content_Type=media_type)
            assert (answer.status, answer.body) == (200, ACCEPTED)
            receipt = answer.headers["x-receipt-id"]
            assert [(r.key, r.value) for r in ingress.publisher.records] == [
                (b"1", b'{"IMEI":"1"}'),
                (b"2", b'{"IMEI":"2"}'),
            ]
            ids = [dict(r.headers)[topics.HEADER_RECEIPT_ID].decode() for r in ingress.publisher.records]
            assert ids == [f"{receipt}.0", f"{receipt}.1"]


async def test_one_bad_event_refuses_the_whole_request():
    """Whole or not at all: nothing of the request is published."""
    async with running() as ingress:
        answer = await ingress.post(b'[{"IMEI":"1"},7]')
        assert answer.status == 400
        assert answer.message == "event 2 is a number; send a JSON object"
        assert ingress.publisher.records == []


async def test_gzip_is_undone():
    """A gzip body is stored decompressed; a bomb and what is no gzip are refused."""
    async with running() as ingress:
        assert (await ingress.post(gzip.compress(BODY), Content_Encoding="gzip")).status == 200
        assert ingress.publisher.records[0].value == BODY
        assert (await ingress.post(gzip.compress(bytes(40_000_000)), Content_Encoding="gzip")).status == 413
        assert (await ingress.post(BODY, Content_Encoding="gzip")).status == 400


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        (
            {"Content_Type": None},
            415,
            "Content-Type missing; send application/json (an event or an array) or application/x-ndjson",
        ),
        ({"Content_Type": "text/plain"}, 415, "Content-Type 'text/plain' not supported; send application/json"),
        (
            {"Content_Type": "application/json; charset=utf-16"},
            415,
            "charset 'utf-16' not supported; send JSON in UTF-8",
        ),
        ({"Content_Type": "application/json; version=1; charset=utf-16"}, 415, "charset 'utf-16' not supported"),
        ({"Content_Type": 'application/json; charset="iso-8859-1";'}, 415, "charset 'iso-8859-1' not supported"),
        ({"Content_Type": "application/json; charset=utf-8; charset=utf-16"}, 415, "charset 'utf-16' not supported"),
        ({"Content_Type": "application/json; a=" + "x" * 300}, 415, "Content-Type is 320 characters long"),
        ({"Content_Type": ";charset=utf-8"}, 415, "Content-Type missing; send application/json"),
        ({"Content_Encoding": "br"}, 415, "Content-Encoding 'br' not supported; send gzip or none"),
        ({"Content_Encoding": "gzip, gzip"}, 415, "Content-Encoding 'gzip, gzip' not supported; send gzip or none"),
        ({"Expect": "200-maybe"}, 417, "Expect '200-maybe' not supported; only 100-continue is"),
        ({"method": "GET"}, 405, "method GET not allowed; use POST"),
        ({"method": "PUT"}, 405, "method PUT not allowed; use POST"),
        ({"method": "OPTIONS"}, 405, "method OPTIONS not allowed; use POST"),
        ({"method": "BREW"}, 400, "not a valid HTTP/1.1 request: "),
        ({"path": "/"}, 404, "no such path; send events to POST /api/events"),
        ({"path": "/api/events/"}, 404, "no such path; send events to POST /api/events"),
        ({"path": "/metrics"}, 404, "no such path; send events to POST /api/events"),
        ({"path": "//api/events"}, 404, "no such path; send events to POST /api/events"),
    ],
)
async def test_what_is_refused_and_how(changed, status, message):
    """Each wrong head has its status and the API's error body; the message says what was found and is expected."""
    async with running() as ingress:
        answer = await ingress.send(request(**changed))
        assert answer.status == status
        assert answer.message.startswith(message)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers.get("allow") == ("POST" if status == 405 else None)
        assert ingress.publisher.records == []


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON",
        'application/json; charset="UTF-8"',
        "application/json;charset=utf8",
        "application/json;",
        "application/json; charset=utf-8;",
        "application/json; charset=utf-8; version=1",
        "application/json; version=1; charset=utf-8",
        'application/json; profile="a;charset=utf-16"; charset=utf-8',
        'application/json; note="a \\"quoted\\" word"',
        "application/json ;charset=utf-8",
        "application/json; charset=us-ascii",
        "application/json; CHARSET=Utf-8",
    ],
)
async def test_media_types_that_are_accepted(media_type):
    """JSON, however its media type is written (RFC 9110), and whatever query the path carries."""
    async with running() as ingress:
        assert (await ingress.post(Content_Type=media_type, path="/api/events?source=x")).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://ingress/api/events", 200),
        ("HTTP://ingress:8080/api/events?source=x", 200),
        ("https://user@ingress/api/events", 200),
        ("http://ingress", 404),
        ("http://ingress?/api/events", 404),
        ("http://ingress/elsewhere", 404),
        ("ftp://ingress/api/events", 404),
    ],
)
async def test_a_request_target_in_absolute_form_is_served(target, status):
    """A client that speaks as if to a proxy is served by the target's path (RFC 9112, section 3.2.2)."""
    async with running() as ingress:
        assert (await ingress.post(path=target)).status == status
        assert len(ingress.publisher.records) == (status == 200)


async def test_the_sender_is_absent_without_credentials():
    """Without tokens and signatures nothing says who sent an event, so the record has no header `sender`."""
    async with running() as ingress:
        assert (await ingress.post(Authorization="Bearer a-token")).status == 200
        assert topics.HEADER_SENDER not in dict(ingress.publisher.records[0].headers)


async def test_size_limits():
    """A body at the limit passes, one byte more is 413: declared, chunked, and before any of it is read."""
    async with running(ingress_body_max_bytes=2_000, ingress_event_max_bytes=5_000) as ingress:
        fits = b'{"a":"' + b"x" * 1_992 + b'"}'
        assert (await ingress.post(fits)).status == 200
        assert (await ingress.post(fits + b" ")).status == 413
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(fits) + 1, fits + b" ")
        [answer] = await ingress.exchange(request(chunked, Content_Length=None, Transfer_Encoding="chunked"))
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        endless = b"%x\r\n%b\r\n" % (len(fits) + 1, fits + b" ")  # refused before its end, so it is not collected
        answer = await ingress.send(request(endless, Content_Length=None, Transfer_Encoding="chunked"))
        assert answer.status == 413
        [answer] = await ingress.exchange(request(b"", Content_Length="99999999"))
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        [answer] = await ingress.exchange(request(b"", Content_Length="2001", Expect="100-continue"))
        assert answer.status == 413


async def test_expect_continue():
    """A client that waits for 100 Continue gets it, once its head is accepted, and then its answer."""
    async with running() as ingress:
        reader, writer = await ingress.connect()
        writer.write(request(b"", Content_Length=str(len(BODY)), Expect="100-continue"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_connections_stay_and_requests_are_pipelined():
    """Three requests at once on one connection: three answers in order; HTTP/1.0 and Connection: close are heeded."""
    async with running() as ingress:
        answers = await ingress.exchange(request() + request(b"[1]") + request())
        assert [answer.status for answer in answers] == [200, 400, 200]
        [answer] = await ingress.exchange(request(Connection="close") + request())
        assert answer.headers["connection"] == "close"
        [answer] = await ingress.exchange(request().replace(b"HTTP/1.1", b"HTTP/1.0") + request())
        assert answer.headers["connection"] == "close"
        answers = await ingress.exchange(request(Connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0") * 2)
        assert [answer.headers["connection"] for answer in answers] == ["keep-alive"] * 2


async def test_health():
    """/healthz is the process, /readyz is Kafka as well; HEAD has no body; there are no metrics here."""
    async with running() as ingress:
        get = request(b"", method="GET", path="/readyz", Content_Length=None)
        head = get.replace(b"GET", b"HEAD", 1)
        health = get.replace(b"/readyz", b"/healthz")
        assert (await ingress.send(get)).status == 200
        ingress.publisher.away = "Kafka is gone fishing"
        answer = await ingress.send(get)
        assert (answer.status, answer.message, answer.headers["retry-after"]) == (503, "Kafka is gone fishing", "1")
        assert (await ingress.send(health)).status == 200
        reader, writer = await ingress.connect()
        writer.write(head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n"))
        assert (await reader.read()).endswith(b"\r\n\r\n")
        writer.close()


async def test_kafka_away_is_503():
    """Never a 200 for what is not stored: 503, Retry-After, a receipt id."""
    publisher = MemoryPublisher()
    publisher.away = "away"
    async with running(publisher=publisher) as ingress:
        answer = await ingress.post()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["x-receipt-id"]
        assert answer.message


async def test_a_fault_of_ours_is_503():
    """An unexpected error is logged and answered 503: the sender repeats it, and the fault's text stays inside."""

    class Broken(MemoryPublisher):
        def publish(self, records, callback):
            raise ZeroDivisionError("the secret of the universe")

    async with running(publisher=Broken()) as ingress:
        answer = await ingress.post()
        assert (answer.status, answer.message) == (503, "internal error; retry")
        assert answer.headers["x-receipt-id"]


class Slow(MemoryPublisher):
    """Publishes when the test releases it."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.publishing = []

    def publish(self, records, callback):
        self.publishing.append(asyncio.create_task(self._publish(records, callback)))

    async def _publish(self, records, callback):
        await self.go.wait()
        super().publish(records, callback)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_too_many_at_once():
    """Beyond the bound of requests in flight the answer is 503 at once, and those before it are finished."""
    slow = Slow()
    async with running(publisher=slow, ingress_inflight_max_requests=2) as ingress:
        posted = {asyncio.create_task(ingress.post()) for _ in range(3)}
        [refused], waiting = await asyncio.wait(posted, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        assert refused.result().status == 503
        assert refused.result().message == "too many requests in flight; retry"
        slow.go.set()
        assert [a.status for a in await asyncio.gather(*waiting)] == [200, 200]


async def test_a_connection_too_many():
    """Beyond the bound of connections, one gets 503 and is closed; after one has gone there is room again."""
    async with running(ingress_connections_max=1) as ingress:
        _, first = await ingress.connect()
        async with asyncio.timeout(5):
            while (answers := await ingress.exchange(b"")) == []:
                pass
        assert [answer.status for answer in answers] == [503]
        first.close()
        async with asyncio.timeout(5):
            while [a.status for a in await ingress.exchange(request())] != [200]:
                pass


async def test_what_is_wrong_with_the_head_is_said_before_the_body():
    """Token, address, signature, rate, path, method, media type, encoding, length: none waits for the body."""
    token, signed = "Bearer a-token", {"ingress_verifier": "hmac-sha256", "ingress_signature_secrets": "x"}
    cases: list[tuple[dict[str, Any], dict[str, Any], int]] = [
        ({"ingress_tokens": "a a-token"}, {}, 401),
        ({"ingress_allow": "192.0.2.1"}, {}, 403),
        (signed, {}, 401),
        ({"ingress_rate_per_address": 1}, {}, 429),
        ({"ingress_tokens": "a a-token", "ingress_rate_per_token": 1}, {"Authorization": token}, 429),
        ({}, {"path": "/nowhere"}, 404),
        ({}, {"method": "PUT"}, 405),
        ({}, {"Content_Type": "text/xml"}, 415),
        ({}, {"Content_Encoding": "br"}, 415),
        ({}, {"Content_Length": "9000000"}, 413),
        ({}, {"Expect": "wonders"}, 417),
    ]
    for given, changed, status in cases:
        async with running(**given) as ingress:
            head = request(b"", **({"Content_Length": "1000"} | changed))
            answer = await (beyond_the_rate(ingress, head, changed) if status == 429 else ingress.send(head))
            assert (answer.status, answer.headers["connection"]) == (status, "close"), (given, changed)
            assert answer.message


async def beyond_the_rate(ingress, head, changed):
    """The answer to a head once a second's requests are used up; when the next second has just begun, once more."""
    async with asyncio.timeout(10):
        while True:
            while (await ingress.post(**changed)).status != 429:
                pass
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(ingress.send(head), 0.5)


async def test_what_comes_while_an_event_is_on_its_way_waits_for_its_answer():
    """An event not yet acknowledged, then one whose body comes later, a page, and an event: answers in order,
    each event published in order, and the connection stays.
    """
    slow = Slow()
    page = request(b"", method="GET", path="/healthz", Content_Length=None)
    bodies = [b'{"IMEI":"%d"}' % number for number in range(4)]
    async with running(publisher=slow) as ingress:
        reader, writer = await ingress.connect()
        writer.write(request(bodies[0]))
        await until(lambda: len(slow.publishing) == 1)
        later = request(bodies[1])
        writer.write(later[:-5])
        writer.write(later[-5:] + page + request(bodies[2]))
        await asyncio.sleep(0.05)
        assert len(slow.publishing) == 1
        slow.go.set()
        answers = [await asyncio.wait_for(read_answer(reader), 5) for _ in range(4)]
        assert [answer.body for answer in answers] == [ACCEPTED, ACCEPTED, b'{"status":"ok"}', ACCEPTED]
        writer.write(request(bodies[3]))
        assert (await asyncio.wait_for(read_answer(reader), 5)).status == 200
        assert [record.value for record in slow.records] == bodies
        writer.close()


async def test_a_refusal_at_once_leaves_the_connection():
    """RequestError without waiting for anything, again and again on one connection, and then accepted on it."""
    async with running() as ingress:
        reader, writer = await ingress.connect()
        statuses = []
        for body in [b"[1]", b"nonsense", b"[]"] * 10 + [BODY]:
            writer.write(request(body))
            statuses.append((await asyncio.wait_for(read_answer(reader), 5)).status)
        assert statuses == [400] * 30 + [200]
        writer.close()


async def test_every_answer_is_counted():
    """By status and reason; and how long each acknowledgement took."""

    def counted():
        replies = [("200", ""), ("400", "not_object"), ("400", "bad_request")]
        labels = [{"status": status, "reason": reason} for status, reason in replies]
        values = [REGISTRY.get_sample_value("eventpush_ingress_replies_total", of) or 0 for of in labels]
        return [*values, REGISTRY.get_sample_value("eventpush_ingress_acknowledge_seconds_count") or 0]

    before = counted()
    async with running() as ingress:
        await ingress.exchange(request() * 4 + request(b"[1]"))
        await ingress.exchange(b"what is this\r\n\r\n")
    assert [after - was for was, after in zip(before, counted(), strict=True)] == [4, 1, 1, 4]


async def test_a_repeat_is_answered_like_the_first():
    """The same event again: 200 and the same body, with a receipt id of its own."""
    async with running() as ingress:
        first, again = await ingress.post(), await ingress.post()
        assert (first.status, first.body) == (again.status, again.body) == (200, ACCEPTED)
        assert first.headers["x-receipt-id"] != again.headers["x-receipt-id"]


async def test_draining():
    """On SIGTERM what has begun is finished and its connection ended, idle connections are closed, status 0."""
    slow = Slow()
    async with running(settings(ingress_drain_s=5), slow) as ingress:
        idle_reader, idle_writer = await ingress.connect()
        idle_writer.write(request(b"[1]"))
        await idle_reader.readuntil(b"}")
        busy = asyncio.create_task(ingress.exchange(request()))
        asyncio.get_running_loop().call_later(0.2, slow.go.set)
        await asyncio.sleep(0.05)
    [answer] = await busy
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await idle_reader.read() == b""
    idle_writer.close()
    assert len(slow.records) == 1


async def test_a_client_that_leaves_changes_nothing():
    """A client that disconnects while its event is on its way: the event is published all the same."""
    slow = Slow()
    async with running(publisher=slow) as ingress:
        _, writer = await ingress.connect()
        writer.write(request())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        slow.go.set()
        async with asyncio.timeout(5):
            while not slow.records:
                await asyncio.sleep(0.01)
        assert (await ingress.post()).status == 200


async def test_strict_mode_and_dry_run():
    """Strict: 422 with every broken rule, nothing stored. The dry run says the same, or identity and topic."""
    broken = json.dumps(EVENT | {"IMEI": "12345", "Event": " "}).encode()
    async with running(ingress_strict=True) as ingress:
        assert (await ingress.post()).status == 200
        strict = await ingress.post(broken)
        dry = await ingress.post(broken, path="/api/events/validate")
        assert (strict.status, dry.status) == (422, 422)
        assert json.loads(strict.body)["errors"] == json.loads(dry.body)["errors"]
        errors = {(e["pointer"], e["reason"]) for e in json.loads(dry.body)["errors"]}
        assert errors == {("/IMEI", "bad_format"), ("/Event", "empty")}
        assert all(set(e) == {"pointer", "reason", "found", "expected"} for e in json.loads(dry.body)["errors"])
        several = await ingress.post(b"[" + BODY + b"," + broken + b"]")
        assert {e["pointer"] for e in json.loads(several.body)["errors"]} == {"/1/IMEI", "/1/Event"}
        assert len(ingress.publisher.records) == 1
    async with running() as ingress:
        assert (await ingress.post(broken)).status == 200
        answer = await ingress.post(path="/api/events/validate")
        assert answer.status == 200
        [destination] = json.loads(answer.body)["events"]
        assert destination["topic"] == "telematics.event.overspeed.v1"
        assert len(destination["event_id"]) == 36
        assert len(ingress.publisher.records) == 1


def test_every_reason_has_a_status():
    """The table from reason to status is whole, and no 5xx but 503 is in it."""
    assert set(STATUS) == set(Rejection)
    assert {status.value for status, _ in STATUS.values() if status >= 500} == {503}
