"""Find the rows of an insert that are missing from their table, after an earlier attempt with an unknown outcome.

ClickHouse writes the token of an insert into a table's deduplication log before it commits the part (`commitPart` in
`MergeTreeSink.cpp`). Killed in between, or failing there, it answers a repeat with the same token with 200 and stores
nothing. Replicated tables can do the same (ClickHouse issues 114068 and 121174).
"""

from collections.abc import Sequence
from uuid import UUID

from clickhouse_connect.driver.asyncclient import AsyncClient

from sinks.row_encoder import RowEncoder

_QUERY_BYTES_MAX = 16 * 2**20


async def find_missing(client: AsyncClient, rows: RowEncoder, values: Sequence[bytes | None]) -> list[bytes | None]:
    """Return the records that have no row, in order; raise the client's errors while ClickHouse is unavailable.

    Part of an insert may be missing: ClickHouse commits one part for each of the table's partitions, one after another.
    """
    identities, earliest, latest = rows.places(values)
    query = _query(rows, set(identities), earliest, latest)
    found = await client.query(query, settings={"max_query_size": _QUERY_BYTES_MAX})
    stored = {str(identity) for (identity,) in found.result_rows}
    return [value for identity, value in zip(identities, values, strict=True) if identity not in stored]


def _query(rows: RowEncoder, identities: set[str], earliest: str, latest: str) -> str:
    table = rows.table
    listed = ",".join(f"'{UUID(identity)}'" for identity in identities)
    return (
        f"SELECT DISTINCT {table.identity} FROM {table.store} "  # noqa: S608 - names of the registry, checked values
        f"WHERE {table.time} >= parseDateTime64BestEffort('{earliest}', 6, 'UTC') "
        f"AND {table.time} <= parseDateTime64BestEffort('{latest}', 6, 'UTC') AND {table.identity} IN ({listed})"
    )
