"""`eventpush contract`."""

from pathlib import Path

import click

from eventpush.contract.acls import of_a_team
from eventpush.contract.export import export
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.errors import OperatorError
from schemas.event_types import canonical
from schemas.topics import of_type, type_topic


@click.group("contract")
def command() -> None:
    """Show subscribers what the topics carry."""


@command_with_examples("export", "eventpush contract export docs")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@as_json
def _export(directory: Path, *, as_json: bool) -> None:
    """Write JSON Schemas, an AsyncAPI document and a page for each topic below DIRECTORY.

    They describe the default settings: contracts/TOPIC.schema.json, contracts/asyncapi.yaml and topics/TOPIC.md.
    """
    try:
        written = export(directory)
    except OSError as error:
        raise OperatorError(f"{directory}: {error.strerror}", "choose a directory that you may write to") from None
    if as_json:
        echo_json([str(path) for path in written])
    else:
        click.echo("\n".join(map(str, written)))


@command_with_examples(
    "acls",
    "eventpush contract acls sos --user dispatch",
    "eventpush contract acls fuel_drain --user fuel --group fuel-team | sh",
)
@click.argument("event_type", metavar="TYPE")
@click.option("--user", required=True, help="The team's user, as the brokers know it.")
@click.option("--group", help="What the team's consumer groups begin with; the user when not given.")
@as_json
def _acls(event_type: str, *, user: str, group: str | None, as_json: bool) -> None:
    """Print the commands of Kafka's own tool that let a team read the topic of one TYPE, and nothing else.

    They expect the administrator's credentials in admin.properties.
    """
    topic = type_topic(of_type(canonical(event_type)))
    bootstrap = settings_of_a_command().kafka_bootstrap
    lines = [right.command(f"User:{user}", bootstrap) for right in of_a_team(topic, group or user)]
    if as_json:
        echo_json(lines)
    else:
        click.echo("\n".join(lines))


command.add_command(_acls)
command.add_command(_export)
