"""The ingress on a free port with a publisher in memory, and a client that speaks raw bytes."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from ingress.http.server import serve
from runtime.platform.settings import Settings
from tests.unit.memory_publisher import MemoryPublisher

EVENT = {
    "Event": "overspeed",
    "Changes": 50,
    "Device_Time": "2024-06-28T17:52:13.000000+0000",
    "IMEI": "350612075195931",
    "Server_Time": "2024-06-28T18:49:45.000000+0000",
    "Coordinates": "22.927968,75.533275",
    "Location": "Indore - Depalpur - Ingoriya Road, Madhya Pradesh, 453220, India",
    "Geofence_Name": None,
}
BODY = json.dumps(EVENT, indent=1).encode()
ACCEPTED = b'{"status":"success","message":"Event received successfully."}'


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """The error body's message; fails when it is not the API's error body."""
        answer = json.loads(self.body)
        assert answer["status"] == "error"
        assert set(answer) <= {"status", "message", "errors"}
        return answer["message"]


class Running(NamedTuple):
    port: int
    publisher: Any

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, raw: bytes, *, half_close: bool = False) -> list[Answer]:
        """Every answer to these bytes, up to the end of the connection or a second of silence."""
        reader, writer = await self.connect()
        writer.write(raw)
        if half_close:
            writer.write_eof()
        answers = []
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            while True:
                answers.append(await asyncio.wait_for(read_answer(reader), 1))
        writer.close()
        return answers

    async def send(self, raw: bytes) -> Answer:
        """The first answer to these bytes."""
        reader, writer = await self.connect()
        writer.write(raw)
        try:
            return await asyncio.wait_for(read_answer(reader), 5)
        finally:
            writer.close()

    async def post(self, body: bytes = BODY, path: str = "/api/events", **headers: str | None) -> Answer:
        """The answer to one POST; header names are written with underscores, None leaves out a default."""
        return await self.send(request(body, method="POST", path=path, **headers))


def request(body: bytes = BODY, *, method: str = "POST", path: str = "/api/events", **headers: str | None) -> bytes:
    given: dict[str, str | None] = {
        "Host": "ingress",
        "Content_Type": "application/json",
        "Content_Length": str(len(body)),
    }
    given |= headers
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value is not None]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(status_line.split()[1]), headers, body)


def settings(**given: Any) -> Settings:
    return Settings.model_validate(given)


@contextlib.asynccontextmanager
async def running(configured: Settings | None = None, publisher: Any = None, **given: Any) -> AsyncIterator[Running]:
    """The ingress with these settings, until the block ends; then it must stop with status 0."""
    publisher = publisher or MemoryPublisher()
    serving, stopped = asyncio.Event(), asyncio.Event()
    configured = configured or settings(**({"ingress_drain_s": 0} | given))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ingress = asyncio.create_task(serve(configured, listener, publisher, on_serving=serving.set, stopped=stopped))
        waiting = asyncio.create_task(serving.wait())
        await asyncio.wait({ingress, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if ingress.done():
            waiting.cancel()
            ingress.result()
        try:
            yield Running(port, publisher)
        finally:
            stopped.set()
            assert await asyncio.wait_for(ingress, 10) == 0
