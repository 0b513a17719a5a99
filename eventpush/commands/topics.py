"""`eventpush topics`."""

import asyncio

import click

from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.kafka.topic_admin import ensure_topics


@command_with_examples(
    "topics",
    "eventpush topics",
    "eventpush topics --check --json",
    "EVENTPUSH_TOPIC_REPLICATION_FACTOR=3 EVENTPUSH_TOPIC_MIN_INSYNC_REPLICAS=2 eventpush topics",
)
@click.option("--check", is_flag=True, help="Change nothing; a missing topic is an error.")
@as_json
def command(*, check: bool, as_json: bool) -> None:
    """Create missing topics, check the others, and update their retention to the settings.

    A partition count other than EVENTPUSH_TOPIC_PARTITIONS is an error: deduplication and the order of a device's
    events are per partition. Any other difference is reported and left unchanged.
    """
    findings = asyncio.run(ensure_topics(settings_of_a_command(), check_only=check))
    if as_json:
        echo_json(findings)
    else:
        click.echo("\n".join(map(str, findings)))
