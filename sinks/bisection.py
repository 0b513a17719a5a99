"""Write an insert to ClickHouse whole, or bisect it until each refused row is isolated."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from runtime.consumer.batch import Record
from sinks.clickhouse_writer import RowsRefusedError
from sinks.row_encoder import RowEncoder
from sinks.write_intent import Row, WriteIntent


class Inserter(Protocol):
    """Insert rows; implemented by `sinks.clickhouse_writer.ClickHouseWriter`."""

    async def insert(self, rows: RowEncoder, values: Sequence[bytes | None], token: str, *, repeated: bool) -> None:
        """Insert all or none, once per token, even if retried; raise `RowsRefusedError`."""


class Refusal(NamedTuple):
    """A record that ClickHouse refused as a row, and why."""

    record: Record
    why: str


#: Refused records by partition, in order.
Refusals = Mapping[int, Sequence[Refusal]]


async def write(
    writer: Inserter, encoder: RowEncoder, intent: WriteIntent, rows: Sequence[Row], *, repeated: bool
) -> Refusals:
    """Insert the rows of the intent; return the refused records, by partition.

    `repeated` says that another process may have begun the write. The halves and their tokens depend on the records
    alone, so a repeat after a crash makes the same inserts.
    """
    refusals: dict[int, list[Refusal]] = defaultdict(list)
    pieces: list[tuple[Sequence[Row], str]] = [(rows, intent.token)] if rows else []
    while pieces:
        piece, token = pieces.pop()
        try:
            await writer.insert(encoder, [row.record.value for row in piece], token, repeated=repeated)
        except RowsRefusedError as refused:
            if len(piece) == 1:
                refusals[piece[0].partition].append(Refusal(piece[0].record, str(refused)))
            else:
                middle = len(piece) // 2
                first, second = piece[:middle], piece[middle:]
                pieces += [(second, intent.token_of(second)), (first, intent.token_of(first))]
    return refusals
