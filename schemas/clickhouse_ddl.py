"""The statements that create ClickHouse's tables and views from their registry, on one server or `ON CLUSTER`."""

from schemas.clickhouse import DATABASE, DEAD_LETTERS, EVENTS, INSERTED_AT, Column, Table

#: Inserts whose tokens a table remembers. At the sink's pace of low load that is minutes, under load hours; a batch is
#: repeated within seconds of its first try, by the same worker or by the one that takes its partition over.
_TOKENS = 10_000
_TOKENS_S = 7 * 86_400

#: Of two rows of one identity, the one that arrived first stays.
_PRECEDENCE = (
    "precedence UInt64 MATERIALIZED 9223372036854775807 - toUnixTimestamp64Micro(received_at) "
    "COMMENT 'the earlier the arrival, the higher: what stays of two rows of one identity' CODEC(Delta, ZSTD(1))"
)


def on_cluster(cluster: str | None) -> str:
    """The clause that runs a statement on every server of the cluster; empty without one."""
    return f" ON CLUSTER `{cluster}`" if cluster else ""


def replacing(table: str, version_column: str, cluster: str | None) -> str:
    """The engine that keeps of rows with one sorting key that with the highest version; replicated in a cluster."""
    if cluster is None:
        return f"ReplacingMergeTree({version_column})"
    path = f"/clickhouse/tables/{{shard}}/{table.replace('.', '/')}"
    return f"ReplicatedReplacingMergeTree('{path}', '{{replica}}', {version_column})"


def create_store(table: Table, cluster: str | None) -> str:
    """The table that the sink inserts into."""
    definitions = [_definition(column) for column in table.columns]
    definitions += [_definition(INSERTED_AT, "DEFAULT now64(6)"), _PRECEDENCE, *table.indexes]
    return (
        f"CREATE TABLE IF NOT EXISTS {table.store}{on_cluster(cluster)} (\n    "
        + ",\n    ".join(definitions)
        + f"\n)\nENGINE = {replacing(table.store, 'precedence', cluster)}\n"
        f"PARTITION BY {table.partition_by}\nORDER BY ({table.order_by})\nSETTINGS {_token_settings(cluster)}"
    )


def create_view(table: Table, cluster: str | None) -> str:
    """The view in which every identity is one row."""
    columns = (*table.columns, INSERTED_AT)
    described = ",\n    ".join(f"{c.name} {c.type} COMMENT {_quoted(c.comment)}" for c in columns)
    return (
        f"CREATE VIEW IF NOT EXISTS {table.view}{on_cluster(cluster)} (\n    {described}\n)\n"
        f"AS SELECT {', '.join(c.name for c in columns)}\nFROM {table.store} FINAL\n"
        # Rows of one identity share the partition: it is a function of the sorting key.
        "SETTINGS do_not_merge_across_partitions_select_final = 1"
    )


def create_conflicts(cluster: str | None) -> str:
    """The view that shows each conflicting dead letter beside the event that was accepted first."""
    return f"CREATE VIEW IF NOT EXISTS {DATABASE}.conflicts{on_cluster(cluster)} AS\n{_CONFLICTS}"


_CONFLICTS = f"""
SELECT d.dead_letter_id AS dead_letter_id, assumeNotNull(d.conflict_with_event_id) AS event_id,
    e.imei AS imei, e.event AS event, e.device_time AS device_time, e.geofence_name AS geofence_name,
    e.changes AS accepted_changes, e.latitude AS accepted_latitude, e.longitude AS accepted_longitude,
    e.received_at AS accepted_at, e.raw AS accepted_raw,
    d.payload AS refused_payload, d.payload_encoding AS refused_payload_encoding,
    d.received_at AS refused_at, d.raw AS refused_raw
FROM {DEAD_LETTERS.view} AS d
LEFT JOIN (
    SELECT * FROM {EVENTS.view} WHERE event_id IN (
        SELECT assumeNotNull(conflict_with_event_id) FROM {DEAD_LETTERS.store} WHERE conflict_with_event_id IS NOT NULL
    )
) AS e ON e.event_id = d.conflict_with_event_id
WHERE conflict_with_event_id IS NOT NULL
""".strip()  # noqa: S608 - made of this registry's names


def _definition(column: Column, default: str = "") -> str:
    codec = f"CODEC({column.codec})" if column.codec else ""
    return " ".join(filter(None, (column.name, column.type, default, "COMMENT", _quoted(column.comment), codec)))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _token_settings(cluster: str | None) -> str:
    if cluster is None:
        return f"non_replicated_deduplication_window = {_TOKENS}"
    return f"replicated_deduplication_window = {_TOKENS}, replicated_deduplication_window_seconds = {_TOKENS_S}"
