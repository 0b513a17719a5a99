"""SQL for ClickHouse's administrator: what people who only read may see, and how much they may use. Pure.

Everybody gets SELECT on views, nobody on a table: the views run with the rights of the user that made them
(`sinks.view_security`). A view that shows payloads, and with them whatever a sender put there, has a role of its own.
"""

from collections.abc import Iterator, Sequence

from schemas.migration_steps import Migration
from schemas.tables import DATABASE, DEAD_LETTERS, EVENTS
from schemas.views import VIEWS

ANALYST, DASHBOARD, DEAD_LETTER_READER, FLEET_READER = "analyst", "dashboard", "dead_letter_reader", "fleet_reader"

#: Views without personal data of payloads.
OPEN_VIEWS = (EVENTS.view, f"{EVENTS.view}_received", f"{DATABASE}.event_by_id", *(view.full_name for view in VIEWS))
#: Views that show payloads, or what was made of them.
PAYLOAD_VIEWS = (DEAD_LETTERS.view, *(f"{DATABASE}.{name}" for name in ("conflicts", "replays", "replayed")))
#: Views whose rows have a fleet: the only ones that a fleet's readers see, each with a policy.
FLEET_VIEWS = (
    EVENTS.view, f"{EVENTS.view}_received", f"{DATABASE}.event_by_id",
    *(view.full_name for view in VIEWS if "fleet" in view.columns),
)  # fmt: skip

#: Role → seconds that a query may take, by itself and at most; its memory in bytes; its queries and seconds an hour.
_LIMITS = {
    ANALYST: (120, 1_800, 10_000_000_000, 10_000, 14_400),
    DASHBOARD: (30, 300, 4_000_000_000, 100_000, 28_800),
    DEAD_LETTER_READER: (60, 300, 4_000_000_000, 10_000, 3_600),
    FLEET_READER: (30, 300, 4_000_000_000, 10_000, 3_600),
}


def statements(fleets: Sequence[str], cluster: str | None) -> list[str]:
    """Return the statements, each of which may run again; for a cluster of that name, on all of its servers."""
    template = "".join(f"{statement};\n" for statement in _statements(fleets))
    return Migration(0, "grants", expands=True, template=template).statements(cluster)


def _statements(fleets: Sequence[str]) -> Iterator[str]:
    yield f"CREATE ROLE IF NOT EXISTS {', '.join(_LIMITS)}{{on_cluster}}"
    for role, limits in _LIMITS.items():
        yield from _limits(role, *limits)
    for view in OPEN_VIEWS:
        yield f"GRANT{{on_cluster}} SELECT ON {view} TO {ANALYST}, {DASHBOARD}"
    for view in PAYLOAD_VIEWS:
        yield f"GRANT{{on_cluster}} SELECT ON {view} TO {DEAD_LETTER_READER}"
    if fleets:
        yield from _fleets(fleets)


def _fleets(fleets: Sequence[str]) -> Iterator[str]:
    roles = {fleet: _identifier(f"fleet {fleet}") for fleet in fleets}
    yield f"CREATE ROLE IF NOT EXISTS {', '.join(roles.values())}{{on_cluster}}"
    yield f"GRANT{{on_cluster}} {FLEET_READER} TO {', '.join(roles.values())}"
    for view in FLEET_VIEWS:
        # A policy hides a view from everybody whom no policy names.
        yield f"CREATE ROW POLICY OR REPLACE all_fleets{{on_cluster}} ON {view} USING 1 TO ALL EXCEPT {FLEET_READER}"
        for fleet, role in roles.items():
            named = f"{role}{{on_cluster}} ON {view}"
            yield f"CREATE ROW POLICY OR REPLACE {named} USING fleet = {_literal(fleet)} TO {role}"
        yield f"GRANT{{on_cluster}} SELECT ON {view} TO {FLEET_READER}"


def _limits(role: str, usual_s: int, most_s: int, memory_bytes: int, queries: int, seconds: int) -> Iterator[str]:
    """Yield the profile and the quota of a role.

    `readonly = 2` allows settings within these bounds: Grafana's data source sets max_execution_time on each query, and
    `readonly = 1` would refuse it.
    """
    yield (
        f"CREATE SETTINGS PROFILE OR REPLACE {role}{{on_cluster}} SETTINGS readonly = 2,"
        f" max_execution_time = {usual_s} MIN 1 MAX {most_s}, max_memory_usage = {memory_bytes} MAX {memory_bytes}"
        f" TO {role}"
    )
    yield (
        f"CREATE QUOTA OR REPLACE {role}{{on_cluster}} KEYED BY user_name"
        f" FOR INTERVAL 1 hour MAX queries = {queries}, execution_time = {seconds} TO {role}"
    )


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
