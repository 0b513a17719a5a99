"""What can be found of one raw event, from Kafka and from ClickHouse. Times in µs since the epoch."""

import msgspec

from schemas.dead_letter import Violation
from schemas.replay import Replay


class Position(msgspec.Struct, frozen=True, order=True):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic} partition {self.partition} offset {self.offset}"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A raw record as Kafka holds it."""

    position: Position
    received_us: int
    receipt_id: str | None
    sender: str | None
    payload: bytes
    replay: Replay | None = None  # None: a sender sent it


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `telematics.events`."""

    event_id: str
    event: str
    imei: str
    receipt_id: str | None
    received_us: int
    inserted_us: int
    vehicle: str | None
    fleet: str | None
    driver: str | None
    raw: Position


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `telematics.dead_letters`; `raw` is on the raw topic also for a dead letter of the sink."""

    dead_letter_id: str
    stage: str
    event: str | None
    imei: str | None
    receipt_id: str | None
    received_us: int
    inserted_us: int
    reasons: list[Violation]
    conflict_with_event_id: str | None
    raw: Position


class RegistryEntry(msgspec.Struct, frozen=True):
    """The newest record of the device in the registry."""

    position: Position
    loaded_us: int


class Facts(msgspec.Struct, kw_only=True):
    """Everything known of one raw record. None: not found, or not there to be found (see `notes`)."""

    raw: Position
    arrival: Arrival | None = None  # None: Kafka has deleted it, or was not asked
    event: EventRow | None = None  # the row of the same identity, perhaps of another raw record
    dead_letter: DeadLetterRow | None = None  # the row of the same payload, perhaps of another raw record
    event_id: str | None = None  # by the rules, from the payload
    violations: list[Violation] = []
    committed_us: int | None = None  # when the batch that holds it was committed
    published: list[Position] = []  # what the stream stage wrote for this raw record
    streams_behind: int | None = None  # records before this one that the stream stage has yet to process; 0: done
    sink_behind: int | None = None
    registry: RegistryEntry | None = None
    is_erased: bool = False  # the device is on the deny list
    notes: list[str] = []
