"""The registry of topics: every topic's name, purpose, key, and how it is created.

All topics have the same number of partitions when they are created,
and everything that comes of a raw record goes to the partition number that the record came from: so the order of a
device's events holds on every topic. `eventpush topics grow` keeps it so; tables, which every reader reads whole, stay
as they are.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from schemas.event_types import TYPES

RAW = "telematics.raw.v1"
EVENTS = "telematics.events.v1"
DEAD_LETTER = "telematics.dead-letter.v1"
DEVICES = "telematics.devices.v1"
ACCOUNT = "telematics.account.v1"
LATEST = "telematics.device.latest.v1"
WINDOW = "telematics.window.v1"
PREFIX = "telematics."  # of every topic
ERASED = "telematics.erased.v1"
EVENT_PREFIX = "telematics.event."
OTHER = "telematics.event.other.v1"

#: Headers of a raw record (ASCII).
HEADER_ARRIVAL_US = "arrival_us"  # microseconds since the epoch, decimal
HEADER_RECEIPT_ID = "receipt_id"
HEADER_SENDER = "sender"  # name of the bearer token or signature secret; absent when none is required
HEADER_TRACEPARENT = "traceparent"  # W3C Trace Context, as it was sent
HEADER_REPLAY = "replay"  # id of the replay that sent the record
HEADER_REPLAY_LETTER = "replay_of"  # the dead letter that the replay sends again
HEADER_REPLAY_ATTEMPT = "replay_attempt"  # 1 for the first replay of a dead letter, decimal

_TYPE_LENGTH_MAX = 64
_DIGEST_BYTES = 16
_PLAIN = re.compile(rf"[a-z0-9_]{{1,{_TYPE_LENGTH_MAX}}}")
_NOT_PLAIN = re.compile(r"[^a-z0-9_]")


@dataclass(frozen=True)
class Topic:
    """One topic: what it carries, who writes and reads it, how it is created."""

    name: str
    description: str
    key: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    compacted: bool = False
    window_retention: bool = False  # kept as long as the window needs it, not `topic_retention_h`
    is_table: bool = False  # every reader reads all partitions, so it keeps their first number


RAW_TOPIC = Topic(RAW, "requests' bytes untouched, as they were accepted", "IMEI", ("ingress",), ("streams",))
EVENTS_TOPIC = Topic(EVENTS, "valid, unique, enriched events of all types", "IMEI", ("streams",), ("sink",))
DEAD_LETTER_TOPIC = Topic(
    DEAD_LETTER, "what broke a rule, with every reason and the original bytes", "IMEI", ("streams", "sink"), ("sink",)
)
DEVICES_TOPIC = Topic(
    DEVICES,
    "the registry: a device's vehicle, fleet and driver, and their history",
    "IMEI",
    ("devices load",),
    ("streams", "sink"),
    compacted=True,
    is_table=True,
)
LATEST_TOPIC = Topic(
    LATEST,
    "the newest event of each device by device_time: where it is, what happened, and when",
    "IMEI",
    ("streams",),
    ("streams", "subscribers"),
    compacted=True,
)
ERASED_TOPIC = Topic(
    ERASED,
    "the deny list of erased devices and drivers, as keyed digests",
    "digest",
    ("erase",),
    ("streams", "sink"),
    compacted=True,
    is_table=True,
)
ACCOUNT_TOPIC = Topic(
    ACCOUNT, "one summary of each batch of the stream stage", "", ("streams",), ("streams", "sink", "account")
)
WINDOW_TOPIC = Topic(
    WINDOW, "changelog of the deduplication window", "", ("streams",), ("streams",), window_retention=True
)


def of_type(event: str) -> str:
    """Return the topic of a canonical event type; different types have different topics.

    A type of at most 64 letters a-z, digits and underscores is its topic's name: `telematics.event.fuel_drain.v1`.
    Any other is named by its readable part and its digest, behind a hyphen, which no canonical type has.
    """
    if _PLAIN.fullmatch(event):
        return f"{EVENT_PREFIX}{event}.v1"
    readable = _NOT_PLAIN.sub("", event)[: _TYPE_LENGTH_MAX - _DIGEST_BYTES * 2 - 1]
    digest = blake2b(event.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{EVENT_PREFIX}{readable}-{digest}.v1"


def schema_id(topic: str) -> str:
    """Return the `$id` of the JSON Schema of a topic's values."""
    return f"urn:eventpush:{topic}"


def is_of_type(topic: str) -> bool:
    """Return whether the topic carries the events of one type."""
    return topic.startswith(EVENT_PREFIX)


def type_topic(name: str) -> Topic:
    """Return the registry entry of a type's topic."""
    return Topic(name, "events of one type", "IMEI", ("streams",), ("subscribers",))


FIXED: tuple[Topic, ...] = (
    RAW_TOPIC,
    EVENTS_TOPIC,
    DEAD_LETTER_TOPIC,
    DEVICES_TOPIC,
    LATEST_TOPIC,
    ACCOUNT_TOPIC,
    WINDOW_TOPIC,
    ERASED_TOPIC,
)


def all_topics(types: Iterable[str] = TYPES) -> tuple[Topic, ...]:
    """Return every topic that exists from the beginning: the fixed ones, `other`, and one for each known type."""
    return (*FIXED, type_topic(OTHER), *(type_topic(of_type(t)) for t in types))
