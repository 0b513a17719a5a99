"""The steps from an empty ClickHouse to the schema that this code needs: one frozen SQL file each, in order.

    schemas/migrations/0002_warnings.sql
        -- name: warnings                     shown by `eventpush migrate` and recorded in the database
        -- compatibility: expand              the previous release's sink can keep writing; contract: it cannot
        -- anything else is a comment

        ALTER TABLE telematics.events_store{on_cluster} ADD COLUMN IF NOT EXISTS …;

A released step never changes: its checksum is recorded in every database, and a test knows those of all releases. Each
statement ends with `;` at the end of a line, and can run twice without harm. Placeholders: `{on_cluster}`, the cluster
clause; `{engine:…}`, an engine of the MergeTree family, replicated in a cluster; `{deduplication_window}`, the setting
of how many inserts' tokens a table remembers, which has another name there; `{events_partition}`, the partition key of
the events, which a new installation chooses.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from schemas.tables import DATABASE, EVENTS

#: Length of a partition of the events. Each is a function of the sorting key, so rows of one identity meet.
Partition = Literal["month", "week", "day"]

_PARTITION_KEYS: Mapping[Partition, str] = {
    "month": EVENTS.partition_by,
    "week": "toMonday(device_time)",
    "day": "toDate(device_time)",
}

TABLE = f"{DATABASE}.schema_migrations"

_DIRECTORY = Path(__file__).parent / "migrations"
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_HEADER = re.compile(r"^-- (name|compatibility): (.+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_STATEMENT_END = re.compile(r";[ \t]*$", re.MULTILINE)
_ENGINE = re.compile(r"\{engine:(\w+)\(([^)]*)\)\}")
_TABLE_NAME = re.compile(r"CREATE TABLE IF NOT EXISTS ([\w.]+)")

#: Inserts whose tokens a table remembers. At the sink's pace of low load that is minutes, under load hours; a batch is
#: repeated within seconds of its first try, by the same worker or by the one that takes its partition over.
_TOKENS = 10_000
_TOKENS_S = 7 * 86_400


@dataclass(frozen=True)
class Migration:
    """One step; `template` is its SQL with placeholders."""

    version: int
    name: str
    expands: bool  # the previous release's sink can keep writing
    template: str

    def statements(self, cluster: str | None, partition: Partition = "month") -> list[str]:
        """Return its SQL for a single server (None) or for a cluster of that name, with partitions of that length."""
        template = self.template.replace("{events_partition}", _PARTITION_KEYS[partition])
        return [_rendered(text.strip(), cluster) for text in _STATEMENT_END.split(template) if text.strip()]

    @cached_property
    def checksum(self) -> str:
        """Identifies the step: SHA-256 over its statements for a single server, with the default partitions."""
        return hashlib.sha256("\0".join(self.statements(None)).encode()).hexdigest()


def bootstrap(cluster: str | None) -> list[str]:
    """Return the statements that must run before any step: the database, and the table of the steps taken."""
    template = (
        f"CREATE DATABASE IF NOT EXISTS {DATABASE}{{on_cluster}};\n"
        f"CREATE TABLE IF NOT EXISTS {TABLE}{{on_cluster}} (\n"
        "    version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)\n"
        ") ENGINE = {engine:ReplacingMergeTree(applied_at)} ORDER BY version;\n"
    )
    return Migration(0, "bootstrap", expands=True, template=template).statements(cluster)


def read_step(path: Path) -> Migration:
    """Read a step; raise ValueError, naming the file, for one that is not as this module's docstring says."""
    text = path.read_text(encoding="utf-8")
    headers, named = dict(_HEADER.findall(text)), _FILE_NAME.fullmatch(path.name)
    if named is None or headers.get("compatibility") not in {"expand", "contract"} or "name" not in headers:
        raise ValueError(f"{path} needs a name like 0002_warnings.sql and the lines `-- name:` and `-- compatibility:`")
    template = _COMMENT.sub("", text)
    return Migration(int(named[1]), headers["name"], headers["compatibility"] == "expand", template)


def _rendered(statement: str, cluster: str | None) -> str:
    table = _TABLE_NAME.match(statement)
    path = f"/clickhouse/tables/{{shard}}/{table[1].replace('.', '/')}" if table else ""
    if cluster is None:
        on_cluster, window = "", f"non_replicated_deduplication_window = {_TOKENS}"
        statement = _ENGINE.sub(r"\1(\2)", statement)
    else:
        on_cluster = f" ON CLUSTER `{cluster}`"
        window = f"replicated_deduplication_window = {_TOKENS}, replicated_deduplication_window_seconds = {_TOKENS_S}"
        statement = _ENGINE.sub(lambda found: f"Replicated{found[1]}('{path}', '{{replica}}', {found[2]})", statement)
    return statement.replace("{on_cluster}", on_cluster).replace("{deduplication_window}", window)


MIGRATIONS: tuple[Migration, ...] = tuple(read_step(path) for path in sorted(_DIRECTORY.glob("*.sql")))

LATEST = MIGRATIONS[-1].version
