"""`eventpush reset`."""

import click

from eventpush.options import command_with_examples, settings_of_a_command
from eventpush.stack import embedded_stack


@command_with_examples("reset", "eventpush reset", "eventpush reset --yes && eventpush up")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(*, yes: bool) -> None:
    """Remove the data of the stack that `eventpush up` runs: all events, topics and tables. It asks first.

    Downloaded jars are data too and are fetched again by the next start. Nothing else is touched: not a cluster
    elsewhere, whatever the settings name.
    """
    data_dir = settings_of_a_command().data_dir
    if not data_dir.exists():
        click.echo(f"nothing to remove: {data_dir} does not exist")
        return
    if not yes:
        click.confirm(f"Remove {data_dir.resolve()} with all of its events?", abort=True)
    embedded_stack().reset(data_dir)
    click.echo(f"removed {data_dir}")
