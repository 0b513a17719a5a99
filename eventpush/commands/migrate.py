"""`eventpush migrate`."""

import asyncio

import click

from eventpush.clickhouse_client import connected
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.settings import Settings
from sinks.migrator import migrate


@command_with_examples(
    "migrate",
    "eventpush migrate",
    "EVENTPUSH_CLICKHOUSE_CLUSTER=main eventpush migrate     # ON CLUSTER, replicated tables",
)
@as_json
def command(*, as_json: bool) -> None:
    """Bring ClickHouse's database up to date: the steps that are missing, in order; run again, it does nothing.

    A schema that a newer eventpush made is refused. The sink does the same at its start.
    """
    taken = asyncio.run(_migrate(settings_of_a_command()))
    if as_json:
        echo_json({"taken": taken})
    else:
        click.echo("\n".join(f"step taken: {step}" for step in taken) or "nothing to do: the schema is up to date")


async def _migrate(settings: Settings) -> list[str]:
    async with connected(settings) as client:
        return await migrate(client, settings)
