"""`eventpush tail`."""

import asyncio
from contextlib import aclosing

import click

from eventpush import tailing
from eventpush.options import command_with_examples, settings_of_a_command
from runtime.platform.settings import Settings
from schemas import topics


@command_with_examples(
    "tail",
    "eventpush tail                                       # all types",
    "eventpush tail sos                                   # the topic of one type",
    "eventpush tail overspeed --from-beginning --max 3 --json",
    "eventpush tail --dead-letters",
)
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.option("--dead-letters", is_flag=True, help="Follow the dead letters.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest retained record.")
@click.option("--max", "count", type=click.IntRange(min=1), metavar="N", help="Stop after N records.")
@click.option("--json", "as_json", is_flag=True, help="Print each record's JSON unchanged, one per line.")
def command(
    event_type: str | None, *, dead_letters: bool, from_beginning: bool, count: int | None, as_json: bool
) -> None:
    """Follow telematics.events.v1, or the topic of one TYPE, one line per event, until Ctrl-C.

    Only committed records are shown, as to any subscriber with isolation level `read_committed`.
    """
    if event_type and dead_letters:
        raise click.UsageError("TYPE and --dead-letters are mutually exclusive")
    topic = topics.of_type(event_type) if event_type else topics.DEAD_LETTER if dead_letters else topics.EVENTS
    asyncio.run(_tail(settings_of_a_command(), topic, from_beginning=from_beginning, count=count, as_json=as_json))


async def _tail(settings: Settings, topic: str, *, from_beginning: bool, count: int | None, as_json: bool) -> None:
    shown = 0
    async with aclosing(tailing.values(settings, topic, from_beginning=from_beginning)) as values:
        async for value in values:
            click.echo(value if as_json else tailing.line(value))
            shown += 1
            if shown == count:
                return
