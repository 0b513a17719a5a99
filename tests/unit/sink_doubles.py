"""Stand-ins for ClickHouse and Kafka that keep their promises and die on request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faust.types import TP

from runtime.consumer.batch import Batch
from sinks.bisection import Refusal
from sinks.clickhouse_writer import RowsRefusedError
from sinks.offset_committer import Committed
from sinks.row_encoder import RowEncoder

EVENTS = TP("telematics.events.v1", 3)


@dataclass(unsafe_hash=True)
class FakeRecord:
    """A record as aiokafka's parser makes it."""

    offset: int
    value: bytes | None
    key: bytes | None = b"350612075195931"
    timestamp: int = 1_719_597_133_000
    headers: Sequence[tuple[str, bytes]] = ()


def record(offset: int, value: bytes | None = None) -> FakeRecord:
    """A record whose value is its offset, unless another is given."""
    return FakeRecord(offset, str(offset).encode() if value is None else value)


def batch(*offsets: int, tp: TP = EVENTS) -> Batch:
    """A batch of records with these offsets."""
    return Batch(tp, [record(offset) for offset in offsets], 1, offsets[0])


class DiedError(Exception):
    """The process was killed."""


def never_dies(_step: str) -> None:
    """A process that lives on."""


@dataclass
class World:
    """What outlives a process: ClickHouse's rows and tokens, Kafka's committed offset and dead letters."""

    poison: frozenset[int] = frozenset()
    stored: list[int] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    committed: Committed = field(default_factory=lambda: Committed(0, ""))
    buried: list[int] = field(default_factory=list)


@dataclass
class FakeWriter:
    """ClickHouse: all or none, once for each token."""

    world: World
    step: Callable[[str], None] = never_dies

    async def insert(self, rows: RowEncoder, values: Sequence[bytes | None], token: str, *, repeated: bool) -> None:
        offsets = [int(value or b"0") for value in values]
        self.step("before insert")
        if self.world.poison & set(offsets):
            raise RowsRefusedError("Code: 469. VIOLATED_CONSTRAINT")
        if token not in self.world.tokens:
            self.world.tokens.add(token)
            self.world.stored += offsets
        self.step("after insert")


@dataclass
class FakeCommitter:
    """The committed offset in Kafka."""

    world: World
    step: Callable[[str], None] = never_dies

    @property
    def committed(self) -> Committed:
        return self.world.committed

    async def read(self) -> Committed:
        return self.world.committed

    async def commit(self, offset: int, metadata: str = "") -> None:
        self.step("before commit")
        self.world.committed = Committed(offset, metadata)
        self.step("after commit")

    async def confirm(self) -> None: ...

    def follow(self, offset: int) -> None: ...


@dataclass
class FakeDeadLetters:
    """The dead-letter topic: letters and offset in one transaction."""

    world: World
    step: Callable[[str], None] = never_dies

    async def fence_previous_owner(self) -> None: ...

    async def publish(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        self.step("before transaction")
        self.world.buried += [refusal.record.offset for refusal in refusals]
        self.world.committed = Committed(next_offset, "")
        self.step("after transaction")

    async def close(self) -> None: ...
