"""What the topics carry into ClickHouse's rows: JSON bytes → typed struct → columns → blocks in Native format. Pure."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from clickhouse_connect.driver.exceptions import DataError

from schemas.clickhouse import DEAD_LETTERS, EVENTS, Column, Table
from schemas.events import CleanEvent, Conflict, DeadLetter, RawPosition, Violation
from sinks import native_format

#: What the mapping raises for a value that no row can hold.
UNMAPPABLE = (msgspec.MsgspecError, DataError, ValueError, TypeError, OverflowError)


def _objects(values: Sequence[dict[str, msgspec.Raw]]) -> list[str]:
    return [msgspec.json.encode(value).decode() if value else "{}" for value in values]


def _positions(values: Sequence[RawPosition]) -> list[tuple[Any, ...]]:
    return list(map(_coordinates, values))


_coordinates = attrgetter("topic", "partition", "offset")


def _violations(values: Sequence[list[Violation]]) -> list[list[tuple[str, ...]]]:
    return [[(v.code, v.field, v.found, v.expected) for v in violations] for violations in values]


def _event_ids(values: Sequence[Conflict | None]) -> list[str | None]:
    return [value.event_id if value else None for value in values]


#: RowEncoder mapped at a time: what they take stays in the processor's cache, which halved the time of a large batch.
_CHUNK_ROWS = 500

_Convert = Callable[[Sequence[Any]], native_format.Values]

_BY_NAME: dict[str, _Convert] = {
    "device_time_local": native_format.wall_clocks,
    "extra": _objects,
    "raw": _positions,
    "reasons": _violations,
    "conflict_with_event_id": _event_ids,
}
_BY_TYPE: dict[str, _Convert] = {"UUID": native_format.uuids, "DateTime64(6, 'UTC')": native_format.instants}

#: Columns whose field on the topic is called otherwise.
FIELD = {"conflict_with_event_id": "conflict_with"}


class RowEncoder:
    """How the records of one topic become rows of one table."""

    def __init__(self, table: Table, shape: type[msgspec.Struct]) -> None:
        self.table = table
        self.decode = msgspec.json.Decoder(shape).decode
        self._readers = [_reader(column) for column in table.columns]
        self._encoder = native_format.NativeEncoder(table)

    def blocks(self, values: Sequence[bytes | None]) -> bytes:
        """The insert of these records, one row each, in order; raises one of `UNMAPPABLE` if one of them is no row."""
        chunks = (values[i : i + _CHUNK_ROWS] for i in range(0, len(values), _CHUNK_ROWS))
        return b"".join(map(self._block, chunks))

    def places(self, values: Sequence[bytes | None]) -> tuple[list[str], str, str]:
        """The identities of these records' rows, and the earliest and latest of their times (RFC 3339, UTC)."""
        structs = [self.decode(value or b"") for value in values]
        times = [getattr(struct, self.table.time) for struct in structs]
        return [getattr(struct, self.table.identity) for struct in structs], min(times), max(times)

    def _block(self, values: Sequence[bytes | None]) -> bytearray:
        structs = [self.decode(value or b"") for value in values]
        return self._encoder.block([read(structs) for read in self._readers], len(structs))


def _reader(column: Column) -> Callable[[Sequence[Any]], native_format.Values]:
    field = attrgetter(FIELD.get(column.name, column.name))
    convert: _Convert = _BY_NAME.get(column.name) or _BY_TYPE.get(column.type) or (lambda values: values)
    return lambda structs: convert(list(map(field, structs)))


EVENT_ROWS = RowEncoder(EVENTS, CleanEvent)
DEAD_LETTER_ROWS = RowEncoder(DEAD_LETTERS, DeadLetter)
