"""An ordinary aiohttp handler that awaits `send_and_wait`: `python -m bench.peers.aiohttp_handler BOOTSTRAP PORT`.

It has our ingress's promise (acks=all, idempotent, compressed, 200 only after the acknowledgement) and the fast event
loop, and none of its other duties: no limits, no refusals, no metrics.
"""

import sys
import time
from collections.abc import AsyncIterator

import orjson
import uvloop
from aiohttp import web
from aiokafka import AIOKafkaProducer

from schemas.topics import HEADER_ARRIVAL_US, RAW

PRODUCER = web.AppKey("producer", AIOKafkaProducer)
_ACCEPTED = {"status": "success", "message": "Event received successfully."}


async def receive(request: web.Request) -> web.Response:
    """POST /api/events: one event."""
    body = await request.read()
    key = orjson.loads(body)["IMEI"].encode()
    headers = [(HEADER_ARRIVAL_US, b"%d" % (time.time_ns() // 1_000))]
    await request.app[PRODUCER].send_and_wait(RAW, body, key=key, headers=headers)
    return web.json_response(_ACCEPTED)


def create_app(bootstrap: str) -> web.Application:
    """Build the application with its producer."""

    async def producer(app: web.Application) -> AsyncIterator[None]:
        app[PRODUCER] = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, compression_type="lz4", linger_ms=2
        )
        await app[PRODUCER].start()
        yield
        await app[PRODUCER].stop()

    app = web.Application()
    app.cleanup_ctx.append(producer)
    app.router.add_post("/api/events", receive)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(create_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=None)
