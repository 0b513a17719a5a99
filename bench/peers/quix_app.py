"""A Quix Streams application with state: `<peers' python> -m bench.peers.quix_app same|lean BOOTSTRAP DIR`.

The variants are those of `faust_agent`. It runs in the peers' environment (Quix Streams pins older libraries); what the
pipeline's rules import is found behind that environment's own packages, in the directories of EVENTPUSH_BENCH_PACKAGES.
Its guarantee is at-least-once, its default.
"""

import os
import sys
from typing import Any

sys.path.extend(os.environ["EVENTPUSH_BENCH_PACKAGES"].split(os.pathsep))

import orjson
from quixstreams import Application, State, message_context
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.models import Topic

from bench.peers.judging import Identified, clean, dead_letter, identify
from bench.peers.progress import Progress
from schemas.topics import RAW

OUT, DEAD, TYPE_PREFIX = "peer.quix.events", "peer.quix.dead", "peer.quix.event."
TYPES = ("overspeed", "geofence_enter", "geofence_exit", "fuel_fill", "fuel_drain", "power_cut", "tampering", "sos")


class Outcome(bytes):
    """The bytes to send, and the event type that they are of; None for a dead letter."""

    event: str | None = None


def create_app(variant: str, bootstrap: str, directory: str) -> Application:
    """Build the application with its one pipeline."""
    progress = Progress()
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"peer-quix-{variant}",
        auto_offset_reset="earliest",
        state_dir=directory,
        loglevel="WARNING",
        on_message_processed=lambda *_: progress.add(),
    )
    frame = app.dataframe(app.topic(RAW, key_deserializer="bytes", value_deserializer="bytes"))
    (_same if variant == "same" else _lean)(app, frame)
    return app


def _lean(app: Application, frame: StreamingDataFrame) -> None:
    def is_new(parsed: dict[str, Any], state: State) -> bool:
        identity = f"{parsed.get('Device_Time')}|{parsed.get('Event')}"  # state is by key already, the IMEI
        return _first_time(state, identity, 1)

    frame.apply(orjson.loads).filter(is_new, stateful=True).apply(orjson.dumps).to_topic(_topic(app, OUT))


def _same(app: Application, frame: StreamingDataFrame) -> None:
    out, dead = _topic(app, OUT), _topic(app, DEAD)
    of_type = {name: _topic(app, TYPE_PREFIX + name) for name in TYPES}

    def identified(
        value: bytes, _key: object, _timestamp: int, headers: list[tuple[str, bytes]]
    ) -> tuple[Identified, bytes]:
        return identify(value, headers or []), value

    def is_new(pair: tuple[Identified, bytes], state: State) -> bool:
        return _first_time(state, pair[0].identity, pair[0].content)

    def outcome(pair: tuple[Identified, bytes]) -> Outcome:
        found, value = pair
        if found.event is None:
            return Outcome(dead_letter(found, value))
        message = message_context()
        result = Outcome(clean(found, message.partition, message.offset))
        result.event = found.event.event
        return result

    # One chain, no branches: Quix Streams copies the value for each branch.
    outcomes = frame.apply(identified, metadata=True).filter(is_new, stateful=True).apply(outcome)
    outcomes.to_topic(lambda value, *_: out if value.event else dead)
    outcomes.filter(lambda value: value.event).to_topic(lambda value, *_: of_type[value.event])


def _first_time(state: State, identity: str, content: int) -> bool:
    if state.exists(identity):
        return False
    state.set(identity, content)
    return True


def _topic(app: Application, name: str) -> Topic:
    return app.topic(name, key_serializer="bytes", value_serializer="bytes")


if __name__ == "__main__":
    create_app(*sys.argv[1:4]).run()
