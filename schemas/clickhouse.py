"""The registry of ClickHouse's tables and views: every column's name, type, codec and meaning, in one place.

What a table stores is in `..._store`, a `ReplacingMergeTree`; people and dashboards read the view without the suffix,
which selects with FINAL: an event is seen once at every moment, also before ClickHouse has merged a repeat away.
The columns carry the names of `schemas.events`; the sink encodes its inserts with the types given here.
"""

from dataclasses import dataclass

DATABASE = "telematics"

_TIME = "DateTime64(6, 'UTC')"
_WORD = "LowCardinality(String)"
_WORD_OR_NULL = "LowCardinality(Nullable(String))"
_POSITION = "Tuple(topic LowCardinality(String), partition UInt32, offset UInt64)"
_VIOLATIONS = "Array(Tuple(code LowCardinality(String), field String, found String, expected String))"

_TEXT_CODEC = "ZSTD(1)"
_TIME_CODEC = "Delta, ZSTD(1)"
_INTEGER_CODEC = "T64, ZSTD(1)"


@dataclass(frozen=True)
class Column:
    """One column that the sink fills."""

    name: str
    type: str
    comment: str
    codec: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the sink inserts into, and the view `name` over it that people read."""

    name: str
    columns: tuple[Column, ...]
    partition_by: str
    order_by: str  # begins with what is asked for, ends with what makes an identity; unique for each identity
    identity: str  # the column that tells one row from another
    time: str  # the column by which a row's place in the table can be narrowed down
    indexes: tuple[str, ...] = ()

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
    columns=(
        Column("event_id", "UUID", "function of the event's identity alone: the same after every retry and replay"),
        Column("event", _WORD, "event type as sent"),
        Column("changes", "Int64", "the type's own value: litres, km/h, …", _INTEGER_CODEC),
        Column("imei", "String", "15 digits", _TEXT_CODEC),
        Column("device_time", _TIME, "when it happened, by the device's clock", _TIME_CODEC),
        Column("server_time", _TIME, "when the platform received it", _TIME_CODEC),
        Column("received_at", _TIME, "when the ingress accepted it", _TIME_CODEC),
        Column("latitude", "Float64", "degrees north, WGS 84", _TEXT_CODEC),
        Column("longitude", "Float64", "degrees east, WGS 84", _TEXT_CODEC),
        Column("location", "String", "address for people, as sent", _TEXT_CODEC),
        Column("geofence_name", _WORD_OR_NULL, "NULL when none was sent"),
        Column("category", _WORD, "what the type is about: driving, fuel, geofence, security, emergency, other"),
        Column("severity", _WORD, "info, warning or critical"),
        Column("h3_r7", "UInt64", "H3 cell of resolution 7, as geoToH3 gives it", _TEXT_CODEC),
        Column("h3_r9", "UInt64", "H3 cell of resolution 9", _TEXT_CODEC),
        Column("time_zone", _WORD, "IANA name at the coordinates"),
        Column("device_time_local", _TIME, "the wall clock of device_time in time_zone; no instant: do not convert it",
               _TIME_CODEC),
        Column("imei_valid", "Bool", "the IMEI's check digit is right"),
        Column("tac", _WORD, "type allocation code: the IMEI's first eight digits"),
        Column("device_delay_ms", "Int64", "device_time to server_time", _INTEGER_CODEC),
        Column("platform_delay_ms", "Int64", "server_time to received_at; negative if the platform's clock is ahead",
               _INTEGER_CODEC),
        Column("vehicle", _WORD_OR_NULL, "the device's vehicle in the registry on arrival"),
        Column("fleet", _WORD_OR_NULL, "the device's fleet in the registry on arrival"),
        Column("driver", _WORD_OR_NULL, "the device's driver in the registry on arrival"),
        Column("extra", "String", "JSON object of the fields that the contract does not know", _TEXT_CODEC),
        Column("receipt_id", "Nullable(String)", "the id in the answer's headers", _TEXT_CODEC),
        Column("raw", _POSITION, "where the bytes lie that it came of", _TEXT_CODEC),
    ),
    partition_by="toYYYYMM(device_time)",
    # device_time stands in it through functions only: as a plain key column it would keep ClickHouse from pruning by
    # toDate(device_time). Measured over 489 granules: "this type in this hour" reads 6, "this device on this day" 11.
    order_by="event, toDate(device_time), imei, toUnixTimestamp64Micro(device_time), event_id",
    identity="event_id",
    time="device_time",
    indexes=("INDEX event_id_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 1",),
)  # fmt: skip

DEAD_LETTERS = Table(
    name="dead_letters",
    columns=(
        Column("dead_letter_id", "UUID", "function of stage and raw position: the same after every replay"),
        Column("stage", _WORD, "who refused it: streams or sink"),
        Column("reasons", _VIOLATIONS, "every broken rule: reason code, field, what was found, what is expected",
               _TEXT_CODEC),
        Column("event", "Nullable(String)", "event type as sent, where it is a string", _TEXT_CODEC),
        Column("imei", "Nullable(String)", "IMEI as sent, where it is a string", _TEXT_CODEC),
        Column("received_at", _TIME, "when the ingress accepted it", _TIME_CODEC),
        Column("receipt_id", "Nullable(String)", "the id in the answer's headers", _TEXT_CODEC),
        Column("payload", "String", "the bytes as they came, as text or in base64", _TEXT_CODEC),
        Column("payload_encoding", _WORD, "utf-8 or base64"),
        Column("conflict_with_event_id", "Nullable(UUID)", "the event that was accepted under the same identity"),
        Column("raw", _POSITION, "where the bytes lie that it came of", _TEXT_CODEC),
    ),
    partition_by="toYYYYMM(received_at)",
    order_by="toDate(received_at), ifNull(imei, ''), dead_letter_id",
    identity="dead_letter_id",
    time="received_at",
)  # fmt: skip

TABLES = (EVENTS, DEAD_LETTERS)

INSERTED_AT = Column("inserted_at", _TIME, "when ClickHouse stored it", _TIME_CODEC)
