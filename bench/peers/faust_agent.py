"""An ordinary Faust agent, event by event, with a table: `python -m bench.peers.faust_agent same|lean BOOTSTRAP DIR`.

`same` does what the stream stage does (validate, deduplicate, enrich, one topic for all and one for each type, dead
letters); `lean` only parses, looks into its table and sends once. Neither has transactions: a crash repeats events.
"""

import sys

import faust
import orjson

from bench.peers.judging import clean, dead_letter, identify
from bench.peers.progress import Progress
from schemas.topics import RAW

OUT, DEAD, TYPE_PREFIX = "peer.faust.events", "peer.faust.dead", "peer.faust.event."


def create_app(variant: str, bootstrap: str, directory: str) -> faust.App:
    """Build the app with its one agent."""
    app = faust.App(
        f"peer-faust-{variant}",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=directory,
        web_enabled=False,
        topic_partitions=4,
        topic_disable_leader=True,
        value_serializer="raw",
        key_serializer="raw",
    )
    progress = Progress()
    raw = app.topic(RAW, value_serializer="raw", key_serializer="raw")
    out = app.topic(OUT, value_serializer="raw", key_serializer="raw")
    dead = app.topic(DEAD, value_serializer="raw", key_serializer="raw")
    seen = app.Table("seen", default=int, key_type=str, value_type=int)
    types: dict[str, faust.Topic] = {}

    def topic_of(event: str) -> faust.Topic:
        if event not in types:
            types[event] = app.topic(TYPE_PREFIX + event, value_serializer="raw", key_serializer="raw")
        return types[event]

    async def same(stream: faust.Stream) -> None:
        async for event in stream.events():
            progress.add()
            key, value = event.key, event.value
            identified = identify(value, list(event.headers.items()))
            if identified.identity in seen:
                continue
            seen[identified.identity] = identified.content
            if identified.event is None:
                await dead.send(key=key, value=dead_letter(identified, value))
                continue
            cleaned = clean(identified, event.message.partition, event.message.offset)
            await out.send(key=key, value=cleaned)
            await topic_of(identified.event.event).send(key=key, value=cleaned)

    async def lean(stream: faust.Stream) -> None:
        async for event in stream.events():
            progress.add()
            parsed = orjson.loads(event.value)
            identity = f"{parsed.get('IMEI')}|{parsed.get('Device_Time')}|{parsed.get('Event')}"
            if identity in seen:
                continue
            seen[identity] = 1
            await out.send(key=event.key, value=orjson.dumps(parsed))

    app.agent(raw)(same if variant == "same" else lean)
    return app


if __name__ == "__main__":
    which, broker, data = sys.argv[1:4]
    faust_app = create_app(which, broker, data)
    sys.argv = ["faust", "worker", "--loglevel", "warn", "--without-web"]
    faust_app.main()
