"""What the one user may do, as configuration that the engine itself enforces.

chdb runs as a local tool: by default its user may read and write every file, run programs and open connections. The
engine's own access control takes that away: it sees the parsed query, so views, nested queries and comments hide
nothing. What is not granted is refused with ClickHouse's code 497, also when a newer engine adds it.
"""

from pathlib import Path

#: Privileges of a real server's user, without SOURCES, BACKUP, FUNCTION, NAMED COLLECTION and access management.
PRIVILEGES = (
    "SHOW", "SELECT", "INSERT", "ALTER", "CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "CREATE DICTIONARY",
    "CREATE TEMPORARY TABLE", "CREATE ARBITRARY TEMPORARY TABLE", "CREATE TEMPORARY VIEW", "DROP", "UNDROP TABLE",
    "TRUNCATE", "OPTIMIZE", "CHECK", "KILL QUERY", "dictGet", "SYSTEM MERGES", "SYSTEM TTL MERGES",
    "SYSTEM RELOAD DICTIONARY", "SYSTEM DROP CACHE", "SYSTEM VIEWS",
)  # fmt: skip

#: Engines of tables and databases that keep their data here.
ENGINES = (
    "AggregatingMergeTree", "Alias", "Buffer", "CoalescingMergeTree", "CollapsingMergeTree", "Dictionary",
    "GenerateRandom", "GraphiteMergeTree", "Join", "Log", "MaterializedView", "Memory", "Merge", "MergeTree", "Null",
    "ReplacingMergeTree", "Set", "StripeLog", "SummingMergeTree", "TinyLog", "VersionedCollapsingMergeTree", "View",
    "Atomic", "Ordinary",
)  # fmt: skip

#: Settings that name a file, a disk or an address, which the engine does not confine to a folder; and those that have
#: a statement read in another language than the one that the policy reads.
FIXED_SETTINGS = (
    "allow_experimental_kusto_dialect", "allow_experimental_polyglot_dialect", "allow_experimental_prql_dialect",
    "dialect", "enable_json_ast_dialect", "enable_trino_dialect", "polyglot_dialect",
    "allow_experimental_eval_table_function", "dynamic_disk_allow_from_env", "dynamic_disk_allow_from_zk",
    "dynamic_disk_allow_include", "filesystem_cache_name", "format_avro_schema_registry_url", "format_schema",
    "format_template_resultset", "format_template_row", "input_format_record_errors_file_path", "output_format_schema",
    "rename_files_after_processing", "s3_base", "url_base", "merge_tree_disk", "merge_tree_storage_policy",
    "merge_tree_table_disk",
)  # fmt: skip


def write_users(file: Path) -> Path:
    """Write the engine's users file; return it."""
    grants = [f"GRANT {', '.join(PRIVILEGES)} ON *.*", *(f"GRANT TABLE ENGINE ON {engine}" for engine in ENGINES)]
    queries = "".join(f"<query>{grant}</query>" for grant in grants)
    constraints = "".join(f"<{name}><readonly/></{name}>" for name in FIXED_SETTINGS)
    file.write_text(
        "<clickhouse>\n"
        f"<profiles><default><constraints>{constraints}</constraints></default></profiles>\n"
        "<quotas><default/></quotas>\n"
        "<users><default><password/><networks><ip>::/0</ip></networks>"
        f"<profile>default</profile><quota>default</quota><grants>{queries}</grants></default></users>\n"
        "</clickhouse>\n"
    )
    return file
