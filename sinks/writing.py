"""A planned batch into ClickHouse: whole, or in halves until the rows that ClickHouse refuses stand alone."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from runtime.fetching import Record
from sinks.plan import Plan
from sinks.rows import Rows
from sinks.store import RowsRefused


class Inserter(Protocol):
    """What stores rows: `sinks.store.Store`."""

    async def insert(self, rows: Rows, values: Sequence[bytes | None], token: str, *, repeated: bool) -> None:
        """Store all or none, once for each token, also if it was tried before; raises `RowsRefused`."""


class Refusal(NamedTuple):
    """A record that cannot be a row, and why."""

    record: Record
    why: str


async def write(store: Inserter, rows: Rows, plan: Plan, records: Sequence[Record], *, repeated: bool) -> list[Refusal]:
    """
    Store the plan's records; returns those that are refused, in order.

    `repeated` says that another process may have begun with it: the halves and their tokens depend on the records
    alone, so a repeat after a crash makes the same inserts.
    """
    refusals: list[Refusal] = []
    parts: list[tuple[Sequence[Record], str]] = [(records, plan.token)]
    while parts:
        part, token = parts.pop()
        try:
            await store.insert(rows, [record.value for record in part], token, repeated=repeated)
        except RowsRefused as refused:
            if len(part) == 1:
                refusals.append(Refusal(part[0], str(refused)))
            else:
                middle = len(part) // 2
                first, second = part[:middle], part[middle:]
                parts += [(second, plan.token_of(second)), (first, plan.token_of(first))]
    return refusals
