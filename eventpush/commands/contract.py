"""`eventpush contract`."""

from pathlib import Path

import click

from eventpush.contract.export import export
from eventpush.options import as_json, command_with_examples, echo_json
from runtime.platform.errors import OperatorError


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


command.add_command(_export)
