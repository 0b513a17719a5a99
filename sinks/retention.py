"""How long ClickHouse keeps rows: a TTL on the arrival of events and dead letters, as `clickhouse_retention_d` says.

By arrival: a TTL on `device_time` would delete what a device delivers late on its arrival.

ClickHouse removes expired rows when it merges their part, hours after the time, and the rollups do not see that. So a
refreshable view comes with the TTL, which marks every minute what rollups must count again (decision 0019): the
hours of rows that have expired, or will within minutes, and are still there. So there is always a mark that is younger
than a rollup's look back, before the rows go and after. It also marks what a restart may have left: hours before the
horizon that have another count in the rollup, and devices whose latest event is gone.
"""

import re
from collections.abc import Mapping

from runtime.platform.settings import Settings
from schemas.migration_steps import Migration
from schemas.tables import DATABASE, TABLES

VIEW = f"{DATABASE}.retention_refresh"

_TTL = re.compile(r" TTL toDateTime\(received_at\) \+ toIntervalDay\((\d+)\)")

_MARKS = """
SELECT DISTINCT toStartOfHour(device_time) AS hour, '' AS imei
FROM telematics.events_store WHERE received_at < now64(6) - INTERVAL {days} DAY + INTERVAL 5 MINUTE
UNION ALL
SELECT stored.hour, '' FROM (
    SELECT hour, sum(events) AS n FROM telematics.events_hourly_store FINAL
    WHERE hour < now() - INTERVAL {days} DAY GROUP BY hour HAVING n > 0
) AS stored LEFT JOIN (
    SELECT toStartOfHour(device_time) AS hour, count() AS n FROM telematics.events
    WHERE device_time < now64(6) - INTERVAL {days} DAY GROUP BY hour
) AS present ON present.hour = stored.hour
WHERE stored.n != present.n
UNION ALL
SELECT toStartOfHour(device_time), imei FROM telematics.device_latest_store FINAL
WHERE present AND received_at < now64(6) - INTERVAL {days} DAY AND event_id NOT IN (
    SELECT event_id FROM telematics.events_store WHERE received_at < now64(6) - INTERVAL {days} DAY AND event_id IN (
        SELECT event_id FROM telematics.device_latest_store FINAL
        WHERE present AND received_at < now64(6) - INTERVAL {days} DAY))
"""


def statements_for(definitions: Mapping[str, str], settings: Settings) -> list[str]:
    """Return the statements that lead from the tables' definitions, by name, to the retention of the settings."""
    days = settings.clickhouse_retention_d
    others = [table.store for table in TABLES if _days(definitions.get(table.store, "")) != days]
    if not others and (VIEW in definitions) == (days is not None):
        return []
    marks = _MARKS.format(days=days).strip()
    lines = [f"DROP TABLE IF EXISTS {VIEW}{{on_cluster}} SYNC"]
    if days is not None:
        lines.append(
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {VIEW}{{on_cluster}}\n"
            f"REFRESH EVERY 1 MINUTE APPEND TO {DATABASE}.rollup_marks AS\n{marks}\n"
            "SETTINGS max_memory_usage = 2000000000"
        )
        lines.append(f"INSERT INTO {DATABASE}.rollup_marks (hour, imei)\n{marks}")
    change = "REMOVE TTL" if days is None else f"MODIFY TTL toDateTime(received_at) + INTERVAL {days} DAY"
    lines += [f"ALTER TABLE {name}{{on_cluster}} {change}" for name in others]
    template = ";\n".join(lines) + ";\n"
    return Migration(0, "retention", expands=True, template=template).statements(settings.clickhouse_cluster)


def _days(definition: str) -> int | None:
    found = _TTL.search(definition)
    return int(found[1]) if found else None
