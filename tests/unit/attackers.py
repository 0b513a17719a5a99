"""Attackers of every kind at once, in a process of their own: `python -m tests.unit.attackers PORT`, until killed."""

import asyncio
import contextlib
import gzip
import sys
from collections.abc import Awaitable, Callable

from tests.unit.ingress_support import Running, request

SLOW = 150
BOMB = request(gzip.compress(bytes(60_000_000)), Content_Encoding="gzip")
DEEP = request(b'{"a":' + b"[" * 200_000)
LARGE = request(b"x" * 4_000_000)
ENDLESS = request(b"", Content_Length=None, Transfer_Encoding="chunked") + b"10000\r\n" + b" " * 0x10000
PIPELINED = request(b"[]") * 200
BINARY = bytes(range(256)) * 20


async def again_and_again(attack: Callable[[], Awaitable[object]]) -> None:
    while True:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            await attack()
        await asyncio.sleep(0.01)


async def pour(door: Running, raw: bytes) -> None:
    """Sends and leaves with what comes, or after a while without."""
    reader, writer = await door.connect()
    try:
        writer.write(raw)
        await asyncio.wait_for(reader.read(1_000), 1)
    finally:
        writer.close()


async def hold(door: Running, raw: bytes) -> None:
    """Begins a request and never ends it."""
    reader, writer = await door.connect()
    try:
        writer.write(raw)
        await reader.read()
    finally:
        writer.close()


async def never_read(door: Running) -> None:
    """Asks for the largest page and reads nothing of it."""
    _, writer = await door.connect()
    try:
        writer.write(request(b"", method="GET", path="/docs") * 50)
        await asyncio.sleep(1)
    finally:
        writer.transport.abort()


async def main() -> None:
    door = Running(int(sys.argv[1]), None)
    attacks: list[Callable[[], Awaitable[object]]] = [
        *(lambda: hold(door, request()[:40]) for _ in range(SLOW)),
        *(lambda: hold(door, request()[:-5]) for _ in range(SLOW)),
        *(lambda raw=raw: pour(door, raw) for raw in (BOMB, DEEP, LARGE, ENDLESS, PIPELINED, BINARY)),
        lambda: never_read(door),
    ]
    async with asyncio.TaskGroup() as group:
        for attack in attacks:
            group.create_task(again_and_again(attack))


if __name__ == "__main__":
    asyncio.run(main())
