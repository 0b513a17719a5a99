"""Bring ClickHouse's schema to what this code needs, step by step.

Every statement of a step may run twice, and a step counts as taken when all of its statements have succeeded. So two
migrations at once, or one that was interrupted, end in the same schema.
"""

from collections.abc import Sequence

import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.migration_steps import LATEST, MIGRATIONS, TABLE, Migration, bootstrap
from schemas.tables import DATABASE
from sinks import retention, view_security

log = structlog.get_logger()

_UNKNOWN_TABLE, _UNKNOWN_DATABASE = 60, 81


async def migrate(client: AsyncClient, settings: Settings) -> list[str]:
    """Take the missing steps, then apply the settings to the tables; return one line for each that changed anything.

    Raise `OperatorError` for a schema newer than this code, and for one whose steps were not those of this code.
    """
    for statement in bootstrap(settings.clickhouse_cluster):
        await client.command(statement)
    taken = [await _take(client, step, settings) for step in missing(await applied(client))]
    for statement in await _security(client, settings):
        await client.command(statement)
    altered = retention.statements_for(await _definitions(client), settings)
    for statement in altered:
        await client.command(statement)
    days = settings.clickhouse_retention_d
    return taken + ([f"rows are kept {f'{days} days' if days else 'without end'}"] if altered else [])


async def planned(client: AsyncClient, settings: Settings) -> list[tuple[Migration, list[str]]]:
    """Return the steps that `migrate` would take, with their statements; changes nothing. Raise as `migrate` does."""
    try:
        taken = await applied(client)
    except DatabaseError as error:
        if error.code not in {_UNKNOWN_TABLE, _UNKNOWN_DATABASE}:
            raise
        taken = {}
    return [(step, _statements(step, settings)) for step in missing(taken)]


async def planned_after(client: AsyncClient, settings: Settings) -> list[str]:
    """Return what `migrate` would execute after its steps, with the views that there are now."""
    return await _security(client, settings) + retention.statements_for(await _definitions(client), settings)


async def _security(client: AsyncClient, settings: Settings) -> list[str]:
    ((user,),) = (await client.query("SELECT currentUser()")).result_rows
    return view_security.statements_for(await _definitions(client), str(user), settings.clickhouse_cluster)


async def _definitions(client: AsyncClient) -> dict[str, str]:
    """Return the statement that makes each table and view of the database, by name; empty if there is no database."""
    question = (
        f"SELECT concat(database, '.', name), create_table_query FROM system.tables WHERE database = '{DATABASE}'"  # noqa: S608 - a constant
    )
    return {str(name): str(statement) for name, statement in (await client.query(question)).result_rows}


async def applied(client: AsyncClient) -> dict[int, str]:
    """Return the steps that the database has: version → checksum."""
    found = await client.query(f"SELECT version, checksum FROM {TABLE} FINAL ORDER BY version")  # noqa: S608 - a constant
    return {int(version): str(checksum) for version, checksum in found.result_rows}


def missing(taken: dict[int, str]) -> Sequence[Migration]:
    """Return the steps still to take; raise `OperatorError` if the steps taken are not a beginning of this code's."""
    newest = max(taken, default=0)
    if newest > LATEST:
        raise OperatorError(
            f"the schema in ClickHouse is version {newest}, and this eventpush knows versions up to {LATEST}",
            "run the newer eventpush that made it",
        )
    for step in MIGRATIONS:
        if taken.get(step.version, step.checksum) != step.checksum:
            raise OperatorError(
                f"step {step.version} ({step.name}) in {TABLE} differs from this eventpush's step {step.version}",
                "run the eventpush that made this schema, or restore the step in schemas/migrations/",
            )
    return [step for step in MIGRATIONS if step.version not in taken]


def _statements(step: Migration, settings: Settings) -> list[str]:
    return step.statements(settings.clickhouse_cluster, settings.clickhouse_partition)


async def _take(client: AsyncClient, step: Migration, settings: Settings) -> str:
    for statement in _statements(step, settings):
        await client.command(statement)
    await client.insert(TABLE, [[step.version, step.name, step.checksum]], column_names=["version", "name", "checksum"])
    log.info("schema step taken", version=step.version, name=step.name)
    return f"{step.version} {step.name}"
