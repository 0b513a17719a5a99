"""Columns into blocks of ClickHouse's Native format: times as integers, encoded by clickhouse-connect's types."""

from collections.abc import Sequence

import numpy as np
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.common import write_leb128
from clickhouse_connect.driver.insert import InsertContext

from schemas.tables import Table

#: A column's values, or its bytes in the Native format.
Values = Sequence[object] | bytes

_WALL_CLOCK = len("2026-01-01T00:00:00.000000")


class NativeEncoder:
    """An encoder of the columns of one table."""

    def __init__(self, table: Table) -> None:
        names = [column.name for column in table.columns]
        types = [get_from_name(column.type) for column in table.columns]
        self._context = InsertContext(table.store, names, types)
        self._columns = [
            (name, type_, b"".join(map(_text, (name, type_.insert_name))))
            for name, type_ in zip(names, types, strict=True)
        ]

    def block(self, columns: Sequence[Values], rows: int) -> bytearray:
        """Return the block of `rows` rows; `columns` in the order of the table's.

        Raise ValueError, OverflowError, TypeError or clickhouse_connect's DataError for a value that the column
        cannot hold.
        """
        out = bytearray()
        write_leb128(len(columns), out)
        write_leb128(rows, out)
        for (name, type_, head), values in zip(self._columns, columns, strict=True):
            out += head
            if isinstance(values, bytes):
                out += values
            else:
                self._context.start_column(name)
                type_.write_column(values, out, self._context)
        return out


def _text(text: str) -> bytes:
    out = bytearray()
    write_leb128(len(text), out)
    return bytes(out + text.encode())


def uuids(texts: Sequence[str]) -> bytes:
    """Encode UUIDs: two little-endian halves each, the high one first; raise ValueError for another notation."""
    digits = bytes.fromhex("".join(texts).replace("-", ""))
    if len(digits) != 16 * len(texts):
        raise ValueError("not a UUID")
    return np.frombuffer(digits, ">u8").astype("<u8").tobytes()


def h3_cells(cells: Sequence[str | int]) -> bytes:
    """Encode H3 cells, 15 hexadecimal digits each, as UInt64; raise ValueError for another text.

    Events of 0.1.0 have the integer.
    """
    texts = [cell if isinstance(cell, str) else f"{cell:015x}" for cell in cells]
    digits = bytes.fromhex("0" + "0".join(texts)) if texts else b""
    if len(digits) != 8 * len(texts) or set(map(len, texts)) - {15}:
        raise ValueError("not an H3 cell")
    return np.frombuffer(digits, ">u8").astype("<u8").tobytes()


def instants(texts: Sequence[str]) -> bytes:
    """Encode RFC 3339 in UTC with microseconds and a Z as µs since the epoch; raise ValueError for anything else."""
    joined = "".join(texts).encode()
    if len(joined) != (_WALL_CLOCK + 1) * len(texts):
        raise ValueError("not a time in UTC with microseconds")
    fields = np.frombuffer(joined, [("clock", f"S{_WALL_CLOCK}"), ("zone", "S1")])
    if (fields["zone"] != b"Z").any():
        raise ValueError("not a time in UTC")
    return _microseconds(fields["clock"])


def wall_clocks(texts: Sequence[str]) -> bytes:
    """Return the date and time at the start of each text, ignoring its offset, in µs since the epoch."""
    joined = "".join([text[:_WALL_CLOCK] for text in texts]).encode()
    if len(joined) != _WALL_CLOCK * len(texts):
        raise ValueError("not a time with microseconds")
    return _microseconds(np.frombuffer(joined, f"S{_WALL_CLOCK}"))


def _microseconds(clocks: "np.ndarray[tuple[int], np.dtype[np.bytes_]]") -> bytes:
    times = clocks.astype("datetime64[us]")
    if np.isnat(times).any():
        raise ValueError("not a time")
    return times.astype("<i8").tobytes()
