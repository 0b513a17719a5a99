"""An answer that is given before all of the request is read reaches its client: it is not lost to a reset."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
import uvloop
from prometheus_client import REGISTRY

from ingress.http import lingering_close
from ingress.http.connection import Connection
from tests.unit.ingress_support import Running, request, running

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
MEGABYTES = 6_000_000  # more than all the buffers between two processes hold
TOKEN = "ep_a-token-that-is-secret"


def on(loop: Callable[[], asyncio.AbstractEventLoop], attempt: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(attempt)


def converse(port: int, raw: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a client reads that first sends all it has, as many do; raises when the connection is reset."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        wrapped = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        stack.enter_context(wrapped)
        wrapped.sendall(raw)
        received = b""
        while not received.endswith(b"}"):
            part = wrapped.recv(65_536)
            if not part:
                break
            received += part
        return received


def early_answers() -> list[Any]:
    """Requests that are processed before their body is read, the settings that it takes, and the status."""
    big = b"x" * MEGABYTES
    roomy = {"ingress_body_max_bytes": 2 * MEGABYTES}
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (MEGABYTES, big)
    return [
        pytest.param({}, request(big), 413, id="too large, as declared"),
        pytest.param(
            {}, request(chunked, Content_Length=None, Transfer_Encoding="chunked"), 413, id="too large, chunked"
        ),
        pytest.param(roomy | {"ingress_tokens": f"a {TOKEN}"}, request(big), 401, id="no token"),
        pytest.param(roomy | {"ingress_allow": "192.0.2.1"}, request(big), 403, id="forbidden address"),
        pytest.param(roomy, request(big, Content_Type="text/plain"), 415, id="wrong media type"),
        pytest.param({}, request(big, path="/elsewhere"), 404, id="no such path"),
        pytest.param({}, request(big, method="PUT"), 405, id="wrong method"),
        pytest.param(roomy, request(big, Expect="a miracle"), 417, id="another expectation"),
        pytest.param({}, request(b"zz\r\n" + big, Content_Length=None, Transfer_Encoding="chunked"), 400, id="chunks"),
        pytest.param({}, b"what is this\r\n\r\n" + big, 400, id="not HTTP"),
        pytest.param({"ingress_connections_max": 1}, request(big), 503, id="a connection too many"),
    ]


@LOOPS
@pytest.mark.parametrize(("given", "raw", "status"), early_answers())
def test_who_sends_first_and_reads_then_gets_the_answer(loop, given, raw, status):
    """A client that sends megabytes and only then reads gets our JSON, ten times of ten, and not a reset."""

    async def attempt() -> None:
        async with running(**given) as ingress:
            first_reader, first = await ingress.connect()
            if "ingress_connections_max" in given:
                first.write(request(b"[]"))
                await first_reader.readuntil(b"}")
            for _ in range(10):
                answer = await asyncio.to_thread(converse, ingress.port, raw)
                assert answer.startswith(b"HTTP/1.1 %d " % status)
                assert b"\r\nConnection: close\r\n" in answer
                assert answer.endswith(b"}")
                assert b'"status":"error"' in answer
            assert ingress.publisher.records == []
            first.close()

    on(loop, attempt())


@LOOPS
def test_the_answer_to_a_large_body_arrives_a_hundred_times_of_a_hundred(loop):
    """Many at once, each sending all of its body first: 413 for every one."""

    async def attempt() -> None:
        raw = request(b"x" * MEGABYTES)
        async with running() as ingress:
            for _ in range(10):
                answers = await asyncio.gather(*(asyncio.to_thread(converse, ingress.port, raw) for _ in range(10)))
                assert [answer[:12] for answer in answers] == [b"HTTP/1.1 413"] * 10
            assert (await ingress.post()).status == 200

    on(loop, attempt())


@LOOPS
def test_over_tls_too(loop, tmp_path: Path):
    """TLS has no half-close: the answer is written, the rest is discarded all the same."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def attempt() -> None:
        given: dict[str, Any] = {f"ingress_tls_{name}_file": str(tmp_path / f"{name}.pem") for name in ("cert", "key")}
        async with running(**given) as ingress:
            raw = request(b"x" * MEGABYTES)
            for _ in range(10):
                answer = await asyncio.to_thread(converse, ingress.port, raw, context)
                assert answer.startswith(b"HTTP/1.1 413 ")
                assert answer.endswith(b"}")

    on(loop, attempt())


@LOOPS
@pytest.mark.parametrize(
    "head", [request(b"")[:-4] + b"\r\nX-Slow: ", request(b"{", Content_Length="1000000")], ids=["headers", "body"]
)
def test_who_trickles_gets_408(loop, head):
    """A client whose bytes still come while we answer 408, and after, reads that answer: twenty of twenty."""

    async def trickle(ingress: Running) -> bytes:
        reader, writer = await ingress.connect()

        async def go_on() -> None:
            writer.write(head)
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.001)

        trickling = asyncio.create_task(go_on())
        try:
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            trickling.cancel()
            writer.close()

    async def attempt() -> None:
        async with running(ingress_header_timeout_s=0.2, ingress_body_timeout_s=0.2) as ingress:
            answers = await asyncio.gather(*(trickle(ingress) for _ in range(20)))
            assert [answer[:13] for answer in answers] == [b"HTTP/1.1 408 "] * 20
            assert all(answer.endswith(b"}") for answer in answers)

    on(loop, attempt())


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Waits until the other side has ended the connection, sending all the while."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"x" * 1_000)
            await writer.drain()
            await asyncio.sleep(0.001)


@LOOPS
@pytest.mark.parametrize("bound", ["TIME_S", "MAX_BYTES"])
def test_discarding_has_bounds(loop, bound, monkeypatch):
    """A client that never stops sending is cut off after the time, and after the amount, whichever is first."""
    monkeypatch.setattr(lingering_close, bound, {"TIME_S": 0.2, "MAX_BYTES": 20_000}[bound])

    async def attempt() -> None:
        async with running() as ingress:
            reader, writer = await ingress.connect()
            writer.write(request(b"", path="/elsewhere", Content_Length="100000000"))
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404 ")
            await asyncio.wait_for(ended(reader, writer), 4)
            writer.close()

    on(loop, attempt())


@LOOPS
def test_a_lingering_connection_takes_no_place(loop, monkeypatch):
    """Whoever is refused and lingers leaves room for others; too many of them are closed at once; all end at a stop."""
    monkeypatch.setattr(lingering_close, "AT_ONCE_MAX", 3)

    async def refused_one(ingress: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await ingress.connect()
        writer.write(request(b"", path="/elsewhere", Content_Length="100000000"))
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404 ")
        return reader, writer

    async def attempt() -> None:
        async with running(ingress_connections_max=1) as ingress:
            lingering_ones = [await refused_one(ingress) for _ in range(3)]
            assert (await ingress.post(Connection="close")).status == 200
            reader, writer = await refused_one(ingress)
            await asyncio.wait_for(ended(reader, writer), 2)
            writer.close()
        for reader, writer in lingering_ones:
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 2)
            writer.close()

    on(loop, attempt())


def send_on_then_read(port: int, duration_s: float) -> bytes:
    """What a client reads that goes on sending for so long before it looks."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            client.sendall(b"x" * 100)
            time.sleep(0.01)
        received = b""
        while part := client.recv(65_536):
            received += part
        return received


def open_connections() -> float:
    """The connections of this process, those included whose refusal is under way."""
    return REGISTRY.get_sample_value("eventpush_ingress_connections") or 0


@LOOPS
def test_a_stop_leaves_a_refusal_to_be_read(loop):
    """One connection too many, refused just before the process gets SIGTERM: its client sends on past the closing
    of idle connections, and reads its 503 all the same.
    """

    async def attempt() -> None:
        async with running(ingress_connections_max=1, ingress_drain_s=5) as ingress:
            before = open_connections()
            _, first = await ingress.connect()
            refused = asyncio.create_task(asyncio.to_thread(send_on_then_read, ingress.port, 1.5))
            async with asyncio.timeout(5):
                while open_connections() < before + 2:
                    await asyncio.sleep(0.001)
        first.close()
        assert (await refused).startswith(b"HTTP/1.1 503 ")

    on(loop, attempt())


async def ask_for_ever(client: socket.socket, asked: bytes) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            client.send(asked)
        await asyncio.sleep(0.01)


@LOOPS
@pytest.mark.parametrize("asked", [request(b"", method="GET", path="/docs"), request()], ids=["pages", "events"])
def test_who_does_not_read_its_answers_is_cut_off(loop, asked):
    """Slow reading: a client that asks again and again and never reads is gone after the time for idle connections."""

    async def attempt() -> None:
        async with running(ingress_keepalive_s=0.3) as ingress:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                client.connect(("127.0.0.1", ingress.port))
                client.setblocking(False)
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(ask_for_ever(client, asked * 100), 30)
            assert (await ingress.post()).status == 200

    on(loop, attempt())


async def test_a_fault_in_a_connection_is_one_line_and_ends_that_connection(monkeypatch):
    """An unexpected error outside of the handler: one line in the log, the connection ended, the next one served."""

    def broken(_connection: Connection, _class: object) -> None:
        raise ZeroDivisionError

    async with running() as ingress:
        with monkeypatch.context() as patched, structlog.testing.capture_logs() as logged:
            patched.setattr(Connection, "begin", broken)
            assert await ingress.exchange(request()) == []
        assert [(line["event"], line["error"]) for line in logged] == [("connection failed", "ZeroDivisionError")]
        assert (await ingress.post()).status == 200


@LOOPS
def test_who_leaves_without_reading_leaves_no_fault(loop):
    """A client that goes while its answers wait to be read: no line in the log, and the next one is served."""

    async def attempt() -> None:
        with structlog.testing.capture_logs() as logged:
            async with running() as ingress:
                for _ in range(3):
                    _, writer = await ingress.connect()
                    writer.write(request(b"", method="GET", path="/docs") * 500)
                    await asyncio.sleep(0.1)
                    writer.transport.abort()
                await asyncio.sleep(0.1)
                assert (await ingress.post()).status == 200
        assert [line for line in logged if line["log_level"] == "error"] == []

    on(loop, attempt())
