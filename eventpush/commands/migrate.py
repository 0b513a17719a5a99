"""`eventpush migrate`."""

import asyncio

import click

from eventpush.clickhouse_client import connected
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.settings import Settings
from schemas.migration_steps import Migration
from sinks.migrator import migrate, planned, planned_after


@command_with_examples(
    "migrate",
    "eventpush migrate",
    "eventpush migrate --dry-run                             # print what would run",
    "EVENTPUSH_CLICKHOUSE_CLUSTER=main eventpush migrate     # ON CLUSTER, replicated tables",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; print the steps and statements that would run.")
@as_json
def command(*, dry_run: bool, as_json: bool) -> None:
    """Bring ClickHouse's database up to date: take the missing steps, in order, and apply the retention of rows.

    Run again, it does nothing. A schema that a newer eventpush made is refused. The sink does the same at its start.
    """
    settings = settings_of_a_command()
    if dry_run:
        _show(*asyncio.run(_planned(settings)), as_json=as_json)
        return
    taken = asyncio.run(_migrate(settings))
    if as_json:
        echo_json({"taken": taken})
    else:
        click.echo("\n".join(f"done: {step}" for step in taken) or "nothing to do: the schema is up to date")


def _show(steps: list[tuple[Migration, list[str]]], afterwards: list[str], *, as_json: bool) -> None:
    described = [
        {"version": s.version, "name": s.name, "compatibility": _compatibility(s), "statements": statements}
        for s, statements in steps
    ]
    if as_json:
        echo_json({"planned": described, "afterwards": afterwards})
        return
    for step, statements in steps:
        click.echo(f"-- step {step.version}: {step.name} ({_compatibility(step)})\n")
        click.echo("".join(f"{statement};\n\n" for statement in statements), nl=False)
    if afterwards:
        click.echo("-- rights of the views, retention of rows\n")
        click.echo("".join(f"{statement};\n\n" for statement in afterwards), nl=False)
    if not steps and not afterwards:
        click.echo("nothing to do: the schema is up to date")


def _compatibility(step: Migration) -> str:
    return "expand" if step.expands else "contract"


async def _migrate(settings: Settings) -> list[str]:
    async with connected(settings) as client:
        return await migrate(client, settings)


async def _planned(settings: Settings) -> tuple[list[tuple[Migration, list[str]]], list[str]]:
    async with connected(settings) as client:
        return await planned(client, settings), await planned_after(client, settings)
