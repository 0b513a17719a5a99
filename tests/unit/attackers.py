"""Attackers in a process of their own: `python -m tests.unit.attackers PORT KIND…`, until killed.

Each kind is a few connections' worth of one attack; `honest` is no attack, but as much honest work.
"""

import asyncio
import contextlib
import gzip
import json
import sys
from collections.abc import Awaitable, Callable

from tests.unit.ingress_support import EVENT, Running, request

SLOW = 150
_GZIP = {"Content_Encoding": "gzip"}

Attack = Callable[[Running], Awaitable[object]]


def _array(event: bytes, times: int) -> bytes:
    return b"[" + b",".join([event] * times) + b"]"


def pour(raw: bytes) -> Attack:
    """Sends and leaves with what comes, or after a while without."""

    async def attack(ingress: Running) -> None:
        reader, writer = await ingress.connect()
        try:
            writer.write(raw)
            await asyncio.wait_for(reader.read(1_000), 1)
        finally:
            writer.close()

    return attack


def hold(raw: bytes) -> Attack:
    """Begins a request and never ends it."""

    async def attack(ingress: Running) -> None:
        reader, writer = await ingress.connect()
        try:
            writer.write(raw)
            await reader.read()
        finally:
            writer.close()

    return attack


async def never_read(ingress: Running) -> None:
    """Asks for the largest page and reads nothing of it."""
    _, writer = await ingress.connect()
    try:
        writer.write(request(b"", method="GET", path="/docs") * 50)
        await asyncio.sleep(1)
    finally:
        writer.transport.abort()


def _wide(start: bytes) -> bytes:
    """Sixteen events as large as may be, of nothing but lists, in a few kilobytes of gzip."""
    return request(gzip.compress(_array(start + b'"x":[' + b",".join([b"[]"] * 80_000) + b"]}", 16)), **_GZIP)


# Made when asked for: some take a while.
KINDS: dict[str, Callable[[], list[Attack]]] = {
    "honest": lambda: [pour(request(json.dumps([EVENT] * 1_000).encode()))],
    "slow heads": lambda: [hold(request()[:40])] * SLOW,
    "slow bodies": lambda: [hold(request()[:-5])] * SLOW,
    "unfinished bodies": lambda: [hold(request(b" " * 1_000_000, Content_Length="1000001"))] * SLOW,
    "gzip bombs": lambda: [pour(request(gzip.compress(bytes(60_000_000)), **_GZIP))],
    "gzip members": lambda: [pour(request(gzip.compress(b"") * 40_000, **_GZIP))],
    "deep nesting": lambda: [pour(request(b'{"a":' + b"[" * 200_000))],
    "large bodies": lambda: [pour(request(b"x" * 4_000_000))],
    "endless bodies": lambda: [
        pour(request(b"", Content_Length=None, Transfer_Encoding="chunked") + b"10000\r\n" + b" " * 0x10000)
    ],
    "pipelined requests": lambda: [pour(request(b"[]") * 200)],
    "no HTTP": lambda: [pour(bytes(range(256)) * 20)],
    "unread answers": lambda: [never_read],
    "wide events": lambda: [pour(_wide(b"{"))],
    "unpaired surrogates": lambda: [pour(_wide(b'{"s":"\\ud800",'))],
    "tiny events": lambda: [pour(request(gzip.compress(_array(b"{}", 1_300_000)), **_GZIP))],
}


async def again_and_again(attack: Attack, ingress: Running) -> None:
    while True:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            await attack(ingress)
        await asyncio.sleep(0.01)


async def main() -> None:
    ingress = Running(int(sys.argv[1]), None)
    async with asyncio.TaskGroup() as group:
        for kind in sys.argv[2:]:
            for attack in KINDS[kind]():
                group.create_task(again_and_again(attack, ingress))
        print("under way", flush=True)  # noqa: T201 - for the parent


if __name__ == "__main__":
    asyncio.run(main())
