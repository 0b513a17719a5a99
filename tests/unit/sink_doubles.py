"""Stand-ins for ClickHouse and Kafka that keep their promises and die on request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faust.types import TP

from runtime.consumer.batch import Batch
from runtime.consumer.offset_committer import Committed
from sinks.bisection import Refusal
from sinks.clickhouse_writer import RowsRefusedError
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


def placed(partition: int, offset: int) -> FakeRecord:
    """A record whose value is its partition and offset as one number: see `place`."""
    return record(offset, str(place(partition, offset)).encode())


def place(partition: int, offset: int) -> int:
    """One number for a position."""
    return partition * 1_000 + offset


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
    offsets: dict[int, Committed] = field(default_factory=dict)  # by partition
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
    """The committed offset of a partition in Kafka."""

    world: World
    step: Callable[[str], None] = never_dies
    partition: int = EVENTS.partition

    @property
    def committed(self) -> Committed:
        return self.world.offsets.get(self.partition, Committed(0, ""))

    async def read(self) -> Committed:
        return self.committed

    async def commit(self, offset: int, metadata: str = "") -> None:
        await commit_together([(self, Committed(offset, metadata))])

    async def confirm(self, wanted: Committed | None = None) -> None: ...

    def follow(self, offset: int) -> None: ...


async def commit_together(commits: Sequence[tuple[FakeCommitter, Committed]]) -> bool:
    """All of them or none."""
    committer = commits[0][0]
    committer.step("before commit")
    committer.world.offsets.update({committer.partition: wanted for committer, wanted in commits})
    committer.step("after commit")
    return True


@dataclass
class FakeDeadLetters:
    """The dead-letter topic: letters and offset in one transaction."""

    world: World
    step: Callable[[str], None] = never_dies
    partition: int = EVENTS.partition

    async def fence_previous_owner(self) -> None: ...

    async def publish(self, refusals: Sequence[Refusal], next_offset: int) -> None:
        self.step("before transaction")
        self.world.buried += [int(refusal.record.value or b"0") for refusal in refusals]
        self.world.offsets[self.partition] = Committed(next_offset, "")
        self.step("after transaction")

    async def close(self) -> None: ...
