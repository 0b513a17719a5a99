"""Views run with the rights of the user that the sink has, so that their readers need none on the tables.

A view that is made anew has the rights of its reader again: this runs after every migration.
"""

from collections.abc import Mapping

from schemas.migration_steps import Migration


def statements_for(definitions: Mapping[str, str], user: str, cluster: str | None) -> list[str]:
    """Return the statements for the views among these definitions, by name, that run with their reader's rights.

    From then on they run with those of `user`, as ClickHouse calls whoever is connected: behind a proxy, or in the
    embedded ClickHouse, that may be another name than the one that logged in.
    """
    quoted = user.replace("\\", "\\\\").replace("`", "\\`")
    template = "".join(
        f"ALTER TABLE {name}{{on_cluster}} MODIFY SQL SECURITY DEFINER DEFINER = `{quoted}`;\n"
        for name, definition in sorted(definitions.items())
        if definition.startswith("CREATE VIEW ") and " SQL SECURITY DEFINER " not in definition
    )
    return Migration(0, "view security", expands=True, template=template).statements(cluster)
