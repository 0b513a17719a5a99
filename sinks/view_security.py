"""Views run with the rights of the user that the sink has, so that their readers need none on the tables.

A view that is made anew has the rights of its reader again: this runs after every migration.
"""

from collections.abc import Mapping

from runtime.platform.settings import Settings
from schemas.migration_steps import Migration


def statements_for(definitions: Mapping[str, str], settings: Settings) -> list[str]:
    """Return the statements for the views among these definitions, by name, that run with their reader's rights."""
    user = settings.clickhouse_user.replace("\\", "\\\\").replace("`", "\\`")
    template = "".join(
        f"ALTER TABLE {name}{{on_cluster}} MODIFY SQL SECURITY DEFINER DEFINER = `{user}`;\n"
        for name, definition in sorted(definitions.items())
        if definition.startswith("CREATE VIEW ") and " SQL SECURITY DEFINER " not in definition
    )
    return Migration(0, "view security", expands=True, template=template).statements(settings.clickhouse_cluster)
