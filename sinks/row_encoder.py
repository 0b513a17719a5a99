"""What the topics carry into ClickHouse's rows: JSON bytes → typed struct → columns → blocks in Native format. Pure."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from clickhouse_connect.driver.exceptions import DataError

from schemas.dead_letter import Conflict, Violation
from schemas.event import RawPosition
from schemas.fields import reading_struct
from schemas.json_text import decoder_of, members_of
from schemas.tables import DEAD_LETTERS, EVENTS, Column, Table
from sinks import native_format as native

#: What the mapping raises for a value that no row can hold.
UNMAPPABLE = (msgspec.MsgspecError, DataError, ValueError, TypeError, OverflowError)


def _texts(values: Sequence[msgspec.Raw]) -> list[str]:
    return [bytes(value).decode() for value in values]


def _positions(values: Sequence[RawPosition]) -> list[tuple[Any, ...]]:
    return list(map(_coordinates, values))


_coordinates = attrgetter("topic", "partition", "offset")


def _violations(values: Sequence[list[Violation]]) -> list[list[tuple[str, ...]]]:
    return [[(v.code, v.field, v.found, v.expected) for v in violations] for violations in values]


def _event_ids(values: Sequence[Conflict | None]) -> list[str | None]:
    return [value.event_id if value else None for value in values]


#: Rows mapped at a time: they stay in the processor's cache, which halved the time of a large batch.
_CHUNK_ROWS = 500

_Convert = Callable[[Sequence[Any]], native.Values]

#: Conversions for columns whose values are not what clickhouse-connect takes, by the column's name, then by its type.
_BY_NAME: dict[str, _Convert] = {
    "device_time_local": native.wall_clocks,
    "h3_r7": native.h3_cells,
    "h3_r9": native.h3_cells,
    "extra": _texts,
    "raw": _positions,
    "reasons": _violations,
    "conflict_with_event_id": _event_ids,
}
_BY_TYPE: dict[str, _Convert] = {"UUID": native.uuids, "DateTime64(6, 'UTC')": native.instants}


class RowEncoder:
    """How the records of one topic become rows of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        struct = reading_struct(table.record)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(struct).decode
        self._decode_unpaired = decoder_of(struct)
        self._readers = [_reader(column) for column in table.columns]
        self._encoder = native.NativeEncoder(table)

    def blocks(self, values: Sequence[bytes | None]) -> bytes:
        """Encode these records as an insert, one row each, in order; raise one of `UNMAPPABLE` if one is no row."""
        chunks = (values[i : i + _CHUNK_ROWS] for i in range(0, len(values), _CHUNK_ROWS))
        return b"".join(map(self._block, chunks))

    def places(self, values: Sequence[bytes | None]) -> tuple[list[str], str, str]:
        """Return the identities of these records' rows, and the earliest and latest of their times (RFC 3339, UTC)."""
        structs = self._structs(values)
        times = [getattr(struct, self.table.time) for struct in structs]
        return [getattr(struct, self.table.identity) for struct in structs], min(times), max(times)

    def _block(self, values: Sequence[bytes | None]) -> bytearray:
        structs = self._structs(values)
        return self._encoder.block([read(structs) for read in self._readers], len(structs))

    def _structs(self, values: Sequence[bytes | None]) -> list[Any]:
        try:
            return [self._decode(value or b"") for value in values]
        except msgspec.MsgspecError:
            return [self._struct(value or b"") for value in values]

    def _struct(self, value: bytes) -> Any:
        """Decode a record whose unknown fields may hold unpaired surrogates; keep these fields as they were sent."""
        struct = self._decode_unpaired(value)
        as_sent = {
            member.name: msgspec.Raw(member.value_text.encode())
            for member in members_of(value) or ()
            if isinstance(getattr(struct, member.name, None), msgspec.Raw)
        }
        return msgspec.structs.replace(struct, **as_sent)


def _reader(column: Column) -> Callable[[Sequence[Any]], native.Values]:
    field = attrgetter(column.field)
    convert: _Convert = _BY_NAME.get(column.name) or _BY_TYPE.get(column.type) or (lambda values: values)
    return lambda structs: convert(list(map(field, structs)))


EVENT_ROWS = RowEncoder(EVENTS)
DEAD_LETTER_ROWS = RowEncoder(DEAD_LETTERS)
