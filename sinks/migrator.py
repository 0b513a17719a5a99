"""Brings ClickHouse's schema to what this code needs, step by step; run twice, or by two at once, it does no harm.

Every statement of a step may be repeated, and a step counts as taken when all of its statements have succeeded, so two
migrations at once, or one that was interrupted, end in the same schema.
"""

import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.migration_steps import LATEST, MIGRATIONS, TABLE, Migration, bootstrap

log = structlog.get_logger()


async def migrate(client: AsyncClient, settings: Settings) -> list[str]:
    """
    Take the missing steps; return one line for each step applied.

    Raises `OperatorError` for a schema newer than this code, and for one whose steps were not those of this code.
    """
    cluster = settings.clickhouse_cluster
    for statement in bootstrap(cluster):
        await client.command(statement)
    taken = await applied(client)
    check(taken)
    return [await _take(client, step, cluster) for step in MIGRATIONS if step.version not in taken]


async def applied(client: AsyncClient) -> dict[int, str]:
    """The steps that the database has: version → checksum."""
    found = await client.query(f"SELECT version, checksum FROM {TABLE} FINAL ORDER BY version")  # noqa: S608 - a constant
    return {int(version): str(checksum) for version, checksum in found.result_rows}


def check(taken: dict[int, str]) -> None:
    """Raises `OperatorError` if the database's steps are not a beginning of this code's."""
    newest = max(taken, default=0)
    if newest > LATEST:
        raise OperatorError(
            f"the schema in ClickHouse is version {newest}, and this eventpush knows versions up to {LATEST}",
            "run the newer eventpush that made it",
        )
    for step in MIGRATIONS:
        if taken.get(step.version, step.checksum) != step.checksum:
            raise OperatorError(
                f"step {step.version} ({step.name}) in {TABLE} is not the one that this eventpush would take",
                "run the eventpush that made this schema, or restore the step in schemas/migrations.py",
            )


async def _take(client: AsyncClient, step: Migration, cluster: str | None) -> str:
    for statement in step.statements(cluster):
        await client.command(statement)
    await client.insert(TABLE, [[step.version, step.name, step.checksum]], column_names=["version", "name", "checksum"])
    log.info("schema step taken", version=step.version, name=step.name)
    return f"{step.version} {step.name}"
