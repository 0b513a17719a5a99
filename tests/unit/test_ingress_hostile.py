"""Bytes from strangers: each attack has its exact outcome, and a healthy client beside it is served."""

import asyncio
import gzip

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.ingress_support import BODY, request, running

HEAD = b"POST /api/events HTTP/1.1\r\nHost: ingress\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: ingress\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + CHUNKED + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + LENGTH + b"Content-Length: 0\r\n\r\n" + BODY,
        HEAD + LENGTH + LENGTH + b"\r\n" + BODY,
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 0x10\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 5, 5\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        HEAD + b"Content-Length : 5\r\n\r\n" + BODY,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Host: other\r\n" + LENGTH + b"\r\n" + BODY,
        HEAD + LENGTH + b" folded: header\r\n\r\n" + BODY,
        HEAD + b"X-Nul: a\x00b\r\n" + LENGTH + b"\r\n" + BODY,
        HEAD + b"X Y: z\r\n" + LENGTH + b"\r\n" + BODY,
        HEAD + b"X-Bare: a\rb\r\n" + LENGTH + b"\r\n" + BODY,
        HEAD + b": empty name\r\n" + LENGTH + b"\r\n" + BODY,
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_plain_http_is_400_and_the_end(raw):
    """Smuggled, malformed and oversized heads: one 400 with the API's body, the connection ended, nothing published."""
    async with running() as ingress:
        answers = await ingress.exchange(raw)
        assert [answer.status for answer in answers] == [400]
        assert answers[0].message
        assert answers[0].headers["connection"] == "close"
        assert ingress.publisher.records == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n",
        b"2\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_bad_chunks(chunks):
    """A body whose chunks are broken is 400 and the end of the connection; nothing of it is published."""
    async with running() as ingress:
        answers = await ingress.exchange(HEAD + CHUNKED + b"\r\n" + chunks + SMUGGLED)
        assert answers[0].status == 400
        assert all(answer.status == 400 for answer in answers)
        assert ingress.publisher.records == []


async def test_chunked_bodies_with_extensions_and_trailers_are_read():
    """Well-formed chunks are a body like another."""
    async with running() as ingress:
        chunks = b"1;x=y\r\n{\r\n1\r\n}\r\n0\r\nX-Trailer: 1\r\n\r\n"
        answers = await ingress.exchange(HEAD + CHUNKED + b"\r\n" + chunks + request())
        assert [answer.status for answer in answers] == [200, 200]
        assert ingress.publisher.records[0].value == b"{}"


async def test_a_body_that_is_cut_off():
    """A client that declares more than it sends and leaves: nothing is published."""
    async with running() as ingress:
        await ingress.exchange(HEAD + b"Content-Length: 500\r\n\r\n" + b'{"a":1}', half_close=True)
        assert ingress.publisher.records == []
        assert (await ingress.post()).status == 200


async def test_slow_headers_are_408():
    """Slowloris: headers that trickle are cut off after the time for headers, with 408, however often a byte comes."""
    async with running(ingress_header_timeout_s=0.3) as ingress:
        reader, writer = await ingress.connect()

        async def trickle():
            for byte in HEAD:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        answer = await asyncio.wait_for(reader.read(), 3)
        trickling.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"status":"error"' in answer
        writer.close()


async def test_silence_is_408_and_idle_connections_end():
    """A connection that sends nothing ends after the time for headers; one between requests after the idle time."""
    async with running(ingress_header_timeout_s=0.2, ingress_keepalive_s=0.3) as ingress:
        reader, writer = await ingress.connect()
        assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 408 ")
        writer.close()
        reader, writer = await ingress.connect()
        writer.write(request())
        answer = await asyncio.wait_for(reader.read(), 3)
        assert answer.count(b"HTTP/1.1") == 1
        writer.close()


async def test_a_slow_body_is_408():
    """A body that trickles is cut off after the time for bodies."""
    async with running(ingress_body_timeout_s=0.3) as ingress:
        reader, writer = await ingress.connect()
        writer.write(HEAD + LENGTH + b"\r\n{")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert ingress.publisher.records == []
        writer.close()


async def test_upgrades_are_not_made():
    """A request to become a websocket is answered as what it is otherwise, and the connection ends."""
    async with running() as ingress:
        upgrade = b"GET /healthz HTTP/1.1\r\nHost: ingress\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        [answer] = await ingress.exchange(upgrade + SMUGGLED)
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_a_healthy_client_beside_attackers():
    """Two hundred slow connections and a stream of gzip bombs: another client's events are all accepted meanwhile."""
    bomb = request(gzip.compress(bytes(30_000_000)), Content_Encoding="gzip")
    async with running() as ingress:
        slow = [await ingress.connect() for _ in range(200)]
        for _, writer in slow:
            writer.write(HEAD + LENGTH + b"\r\n{")
        bombs = [asyncio.create_task(ingress.exchange(bomb)) for _ in range(10)]
        answers = [await ingress.post() for _ in range(50)]
        assert [answer.status for answer in answers] == [200] * 50
        assert {answer.status for exchanged in await asyncio.gather(*bombs) for answer in exchanged} == {413}
        for _, writer in slow:
            writer.close()


@given(
    st.lists(
        st.sampled_from([b"POST /api/events HTTP/1.1\r\n", b"Content-Length: 2\r\n", CHUNKED, b"\r\n", b"{}", b"2\r\n"])
        | st.binary(max_size=8)
        | st.sampled_from([b"0\r\n\r\n", b"Content-Type: application/json\r\n", b"GET ", b":", b"\r", b"\n", b"\x00"]),
        max_size=12,
    ).map(b"".join)
)
@hypothesis_settings(
    max_examples=hypothesis_settings().max_examples * 60 // 100, suppress_health_check=[HealthCheck.too_slow]
)
@pytest.mark.fuzz
def test_any_bytes_get_no_5xx(raw):
    """Whatever bytes come: no answer is a 5xx, and whoever comes next is served."""

    async def attempt():
        async with running() as ingress:
            answers = await ingress.exchange(raw, half_close=True)
            assert all(answer.status < 500 for answer in answers)
            assert (await ingress.post()).status == 200

    asyncio.run(attempt())
