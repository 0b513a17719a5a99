"""`eventpush reset`."""

import click

from eventpush.embedded_stack import load_embedded_stack
from eventpush.options import command_with_examples, settings_of_a_command


@command_with_examples("reset", "eventpush reset", "eventpush reset --yes && eventpush up")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def command(*, yes: bool) -> None:
    """Remove all data of `eventpush up`: events, topics, tables and downloaded jars. It asks first.

    The next start downloads the jars again. Nothing else is touched, in particular no other Kafka or ClickHouse,
    whatever the settings name.
    """
    data_dir = settings_of_a_command().data_dir
    if not data_dir.exists():
        click.echo(f"nothing to remove: {data_dir} does not exist")
        return
    if not yes:
        click.confirm(f"Remove {data_dir.resolve()} with all its events?", abort=True)
    load_embedded_stack().reset(data_dir)
    click.echo(f"removed {data_dir}")
