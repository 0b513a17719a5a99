"""`eventpush grants`."""

import click

from eventpush.grants import statements
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from eventpush.text import has_control_characters


def _fleet(_ctx: click.Context, _param: click.Parameter, fleets: tuple[str, ...]) -> tuple[str, ...]:
    for fleet in fleets:
        if not fleet.strip() or has_control_characters(fleet):
            raise click.BadParameter(f"{fleet!r} is not the name of a fleet")
    return fleets


@command_with_examples(
    "grants",
    "eventpush grants                                        # print; run as ClickHouse's administrator",
    "eventpush grants --fleet Indore --fleet 'South West'    # roles that see one fleet each, too",
)
@click.option("--fleet", "fleets", multiple=True, callback=_fleet, help="A fleet that gets a role of its own.")
@as_json
def command(*, fleets: tuple[str, ...], as_json: bool) -> None:
    r"""Print SQL for roles that only read ClickHouse's views; an administrator runs it. Run again, it changes nothing.

    \b
    analyst             every view but those that show payloads
    dashboard           the same, for Grafana: shorter queries, more of them
    dead_letter_reader  dead letters, conflicts and replays: payloads are personal data
    fleet_reader        what has a fleet; a role "fleet NAME" for each --fleet sees its rows

    Each role has limits for a query, which its users may change within bounds, and a quota by the hour. The views run
    with the rights of EVENTPUSH_CLICKHOUSE_USER, so nobody needs rights on the tables.
    """
    lines = statements(fleets, settings_of_a_command().clickhouse_cluster)
    if as_json:
        echo_json(lines)
    else:
        click.echo("".join(f"{line};\n" for line in lines), nl=False)
