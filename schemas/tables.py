"""ClickHouse's tables and views, derived from the declared records: names, columns, types, codecs, sorting keys.

A table's rows are in `..._store`, a `ReplacingMergeTree`; people and dashboards read the view without the suffix, which
selects with FINAL: each event is seen once at every moment, also before ClickHouse has merged a repeat away.
`schemas/migrations/` creates all of it; a test compares what the migrations make with what is declared here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.fields import TIME, TIME_CODEC, fields_of

DATABASE = "telematics"

#: A partition to which nothing was written for an hour is merged to one part, however old it is and whatever came late.
#: FINAL over one part costs what the table costs; over several, up to a thousand times as much (docs/benchmarks.md).
_MERGE_IDLE_PARTITIONS = MappingProxyType(
    {"min_age_to_force_merge_seconds": "3600", "min_age_to_force_merge_on_partition_only": "1"}
)


@dataclass(frozen=True)
class Column:
    """One column: `field` is the record's field that it is filled from."""

    name: str
    type: str
    comment: str
    codec: str
    field: str


@dataclass(frozen=True)
class Table:
    """A table that the sink inserts into, and the view `name` over it that people read."""

    name: str
    record: type[msgspec.Struct]
    partition_by: str
    order_by: str  # begins with what is asked for, ends with what makes an identity; unique for each identity
    identity: str  # the column that identifies a row
    time: str  # the column by which a row's place in the table can be narrowed down
    indexes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    derived: tuple[Column, ...] = ()  # at the end of the view, and not in the table

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that the sink fills, in the order of the record's fields."""
        return tuple(
            Column(field.column or name, field.clickhouse, field.comment, field.codec, name)
            for name, field in fields_of(self.record).items()
        )

    @property
    def store(self) -> str:
        """The table's name, with its database."""
        return f"{DATABASE}.{self.name}_store"

    @property
    def view(self) -> str:
        """The view's name, with its database."""
        return f"{DATABASE}.{self.name}"


EVENTS = Table(
    name="events",
    record=Event,
    partition_by="toYYYYMM(device_time)",
    # device_time is in it through functions only: as a plain key column it would keep ClickHouse from pruning by
    # toDate(device_time). Measured over 489 granules: "this type in this hour" reads 6, "this device on this day" 11.
    order_by="event, toDate(device_time), imei, toUnixTimestamp64Micro(device_time), event_id",
    identity="event_id",
    time="device_time",
    indexes=(
        "INDEX event_id_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX received_at_minmax received_at TYPE minmax GRANULARITY 1",
        "INDEX inserted_at_minmax inserted_at TYPE minmax GRANULARITY 1",
    ),
    settings=_MERGE_IDLE_PARTITIONS,
)

DEAD_LETTERS = Table(
    name="dead_letters",
    record=DeadLetter,
    partition_by="toYYYYMM(received_at)",
    order_by="toDate(received_at), ifNull(imei, ''), dead_letter_id",
    identity="dead_letter_id",
    time="received_at",
    indexes=("INDEX inserted_at_minmax inserted_at TYPE minmax GRANULARITY 1",),
    settings=_MERGE_IDLE_PARTITIONS,
    derived=(Column("resolved_by_event_id", "Nullable(UUID)", "the event that a replay made of it", "", ""),),
)

TABLES = (EVENTS, DEAD_LETTERS)

#: Filled by ClickHouse; the views show it too.
INSERTED_AT = Column("inserted_at", TIME, "when ClickHouse stored it", TIME_CODEC, "")
