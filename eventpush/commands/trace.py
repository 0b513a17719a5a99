"""`eventpush trace`."""

import asyncio
import time

import click

from eventpush.moments import Moment
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from eventpush.tracing.text import lines
from eventpush.tracing.trace import trace
from eventpush.tracing.wanted import Wanted, of_identifier

_HOUR_US = 3_600_000_000
_MINUTE_US = 60_000_000


@command_with_examples(
    "trace",
    "eventpush trace 3f9a0c51d2e4-1f                          # the X-Receipt-Id of a response",
    "eventpush trace 0f6f5d3e-8a55-4b7a-9f0e-2f3c1f0a7d11     # an event_id or a dead_letter_id",
    "eventpush trace --imei 350612075195931 --around 2026-11-24T02:14:00Z --within 10",
    "eventpush trace 3f9a0c51d2e4-1f --json | jq '.[].stages'",
)
@click.argument("identifier", metavar="[RECEIPT | EVENT_ID]", required=False)
@click.option("--imei", help="Trace the events of this device; needs --around.")
@click.option("--around", type=Moment(), metavar="TIME", help="Device time or arrival, RFC 3339; needs --imei.")
@click.option(
    "--within", type=click.IntRange(min=1), default=10, show_default=True, help="Minutes before and after --around."
)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Search Kafka from this arrival on.  [default: one hour ago]"
)
@as_json
def command(
    identifier: str | None, *, imei: str | None, around: int | None, within: int, since: int | None, as_json: bool
) -> None:
    """Show the whole way of an event: request, raw record, outcome, messages, row, with the time between stages.

    ClickHouse is asked first. Kafka adds the rest: sender and size, duplicates, and what is not in ClickHouse yet. What
    Kafka has deleted is shown from ClickHouse alone. An event that ClickHouse does not know is searched for in the raw
    topic, from --since on.
    """
    settings = settings_of_a_command()
    now_us = time.time_ns() // 1_000
    traces = asyncio.run(trace(settings, _wanted(identifier, imei, around, within * _MINUTE_US, since, now_us)))
    if as_json:
        echo_json(traces)
    else:
        click.echo("\n\n".join("\n".join(lines(of_one)) for of_one in traces))


def _wanted(
    identifier: str | None, imei: str | None, around_us: int | None, within_us: int, since_us: int | None, now_us: int
) -> Wanted:
    if identifier is not None and imei is None and around_us is None:
        return of_identifier(identifier, now_us - _HOUR_US if since_us is None else since_us, now_us)
    if identifier is None and imei is not None and around_us is not None:
        return Wanted(imei=imei, since_us=around_us - within_us, until_us=around_us + within_us)
    raise click.UsageError("give a RECEIPT or an EVENT_ID, or both --imei and --around")
