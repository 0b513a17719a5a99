"""Write a batch to ClickHouse whole, or bisect it until each refused row is isolated."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from runtime.consumer.batch import Record
from sinks.clickhouse_writer import RowsRefusedError
from sinks.row_encoder import RowEncoder
from sinks.write_intent import WriteIntent


class Inserter(Protocol):
    """Insert rows; implemented by `sinks.clickhouse_writer.ClickHouseWriter`."""

    async def insert(self, rows: RowEncoder, values: Sequence[bytes | None], token: str, *, repeated: bool) -> None:
        """Insert all or none, once per token, even if retried; raise `RowsRefusedError`."""


class Refusal(NamedTuple):
    """A record that ClickHouse refused as a row, and why."""

    record: Record
    why: str


async def write(
    writer: Inserter, rows: RowEncoder, intent: WriteIntent, records: Sequence[Record], *, repeated: bool
) -> list[Refusal]:
    """Insert the intent's records; return the refused ones, in order.

    `repeated` says that another process may have begun the write. The halves and their tokens depend on the records
    alone, so a repeat after a crash makes the same inserts.
    """
    refusals: list[Refusal] = []
    parts: list[tuple[Sequence[Record], str]] = [(records, intent.token)]
    while parts:
        part, token = parts.pop()
        try:
            await writer.insert(rows, [record.value for record in part], token, repeated=repeated)
        except RowsRefusedError as refused:
            if len(part) == 1:
                refusals.append(Refusal(part[0], str(refused)))
            else:
                middle = len(part) // 2
                first, second = part[:middle], part[middle:]
                parts += [(second, intent.token_of(second)), (first, intent.token_of(first))]
    return refusals
