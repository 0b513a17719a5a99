"""The steps from an empty ClickHouse to the schema that this code needs, in order; a step once released never changes.

A change of the schema is a new step at the end, whose statements may be run twice without harm.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from schemas import clickhouse_ddl as ddl
from schemas.clickhouse import DATABASE, TABLES

TABLE = f"{DATABASE}.schema_migrations"


@dataclass(frozen=True)
class Migration:
    """One step: `statements` gives its SQL for a single server (None) or a cluster's name."""

    version: int
    name: str
    statements: Callable[[str | None], list[str]]

    @property
    def checksum(self) -> str:
        """What tells whether a step was changed after its release: over the statements for a single server."""
        return hashlib.sha256("\0".join(self.statements(None)).encode()).hexdigest()


def ground(cluster: str | None) -> list[str]:
    """The statements that must come before any step: the database, and the table of the steps taken."""
    return [
        f"CREATE DATABASE IF NOT EXISTS {DATABASE}{ddl.on_cluster(cluster)}",
        (
            f"CREATE TABLE IF NOT EXISTS {TABLE}{ddl.on_cluster(cluster)} (\n"
            "    version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)\n"
            f") ENGINE = {ddl.replacing(TABLE, 'applied_at', cluster)} ORDER BY version"
        ),
    ]


def _events_and_dead_letters(cluster: str | None) -> list[str]:
    return [
        *(ddl.create_store(table, cluster) for table in TABLES),
        *(ddl.create_view(table, cluster) for table in TABLES),
        ddl.create_conflicts(cluster),
    ]


MIGRATIONS: tuple[Migration, ...] = (Migration(1, "events and dead letters", _events_and_dead_letters),)

LATEST = MIGRATIONS[-1].version
