"""`eventpush topics`."""

import asyncio

import click

from eventpush.growth.grow import grow
from eventpush.options import as_json, command_with_examples, echo_json, group_with_examples, settings_of_a_command
from runtime.kafka.topic_admin import ensure_topics

_PARTITIONS_MAX = 1_024  # of EVENTPUSH_TOPIC_PARTITIONS


@group_with_examples(
    "topics",
    "eventpush topics",
    "eventpush topics --check --json",
    "EVENTPUSH_TOPIC_REPLICATION_FACTOR=3 EVENTPUSH_TOPIC_MIN_INSYNC_REPLICAS=2 eventpush topics",
)
@click.option("--check", is_flag=True, help="Change nothing; a missing topic is an error.")
@as_json
@click.pass_context
def command(context: click.Context, *, check: bool, as_json: bool) -> None:
    """Create missing topics, check the others, and update their retention to the settings.

    A partition count other than EVENTPUSH_TOPIC_PARTITIONS is an error: deduplication and the order of a device's
    events are per partition, and `topics grow` moves them. Any other difference is reported and left unchanged.
    """
    if context.invoked_subcommand is not None:
        return
    findings = asyncio.run(ensure_topics(settings_of_a_command(), check_only=check))
    if as_json:
        echo_json(findings)
    else:
        click.echo("\n".join(map(str, findings)))


@command_with_examples(
    "grow",
    "eventpush topics grow --partitions 12 --dry-run",
    "eventpush topics grow --partitions 12",
)
@click.option(
    "--partitions",
    type=click.IntRange(1, _PARTITIONS_MAX),
    required=True,
    help="How many partitions each topic is to have.",
)
@click.option(
    "--dry-run", is_flag=True, help="Change nothing; say what would be done, and whether the brokers allow it."
)
@as_json
def _grow(*, partitions: int, dry_run: bool, as_json: bool) -> None:
    """Give every topic more partitions, on a running installation, without losing the window, order or exactness.

    The ingress answers 503 meanwhile, and senders retry. The stream workers and the sinks finish what is there and
    leave; the identities of the window and the states of devices move to the partitions that their devices have from
    then on. At the end, set EVENTPUSH_TOPIC_PARTITIONS to the new number and start the workers and the sinks.

    A growth that was ended at any point is continued by the same command; until then events are refused. One that
    still waits for the stages gives up at Ctrl-C, or with the number that the topics have.
    """
    settings = settings_of_a_command()
    result = asyncio.run(grow(settings, partitions, lambda line: click.echo(line, err=as_json), dry_run=dry_run))
    if as_json:
        echo_json(result)


command.add_command(_grow)
