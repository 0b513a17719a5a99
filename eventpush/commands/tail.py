"""`eventpush tail`."""

import asyncio
import time
from contextlib import aclosing
from typing import NamedTuple

import click

from eventpush import record_text, tailing
from eventpush.filters import Filter, FilterError, filter_of
from eventpush.moments import Ago
from eventpush.options import command_with_examples, settings_of_a_command
from runtime.platform.settings import Settings
from schemas import topics
from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.event_types import canonical
from schemas.fields import fields_of
from schemas.headers import headers_of


class _Shown(NamedTuple):
    """Which records are shown, and how."""

    since_ms: int | None
    count_max: int | None
    chosen: Filter | None
    heading: str | None
    text_of: record_text.Renderer


@command_with_examples(
    "tail",
    "eventpush tail                                       # all types",
    "eventpush tail sos                                   # the topic of one type",
    "eventpush tail overspeed --from-beginning --max 3 --json",
    """eventpush tail --since 10m --where 'severity == "critical" and fleet == "north"'""",
    "eventpush tail sos --since 1d --csv --max 1000",
    "eventpush tail --dead-letters",
)
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.option("--dead-letters", is_flag=True, help="Follow the dead letters.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest retained record.")
@click.option("--since", "since_s", type=Ago(), help="Start with what arrived that long ago: 30s, 10m, 2h, 7d.")
@click.option("--where", metavar="EXPRESSION", help="Show records for which an expression over their fields holds.")
@click.option("--max", "count", type=click.IntRange(min=1), metavar="N", help="Stop after N records.")
@click.option("--headers", "with_headers", is_flag=True, help="Show each record's headers too.")
@click.option("--json", "as_json", is_flag=True, help="Print each record's JSON unchanged, one per line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a heading; objects and arrays as JSON.")
def command(
    event_type: str | None,
    *,
    dead_letters: bool,
    from_beginning: bool,
    since_s: int | None,
    where: str | None,
    count: int | None,
    with_headers: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Follow telematics.events.v1, or the topic of one TYPE, one line per event, until Ctrl-C.

    Only committed records are shown, as to any subscriber with isolation level `read_committed`.
    """
    for one, other, names in (
        (event_type, dead_letters, "TYPE and --dead-letters"),
        (from_beginning, since_s, "--from-beginning and --since"),
        (as_json, as_csv, "--json and --csv"),
    ):
        if one and other:
            raise click.UsageError(f"{names} are mutually exclusive")
    topic = topics.DEAD_LETTER if dead_letters else topics.EVENTS
    if event_type:
        topic = topics.of_type(canonical(event_type))
    fields = list(fields_of(DeadLetter if dead_letters else Event))
    headers = [header.name for header in headers_of(topic)] if with_headers else []
    shown = _Shown(
        0 if from_beginning else int(time.time() - since_s) * 1_000 if since_s else None,
        count,
        _filter(where, fields) if where else None,
        record_text.csv_heading(fields, headers) if as_csv else None,
        record_text.as_csv(fields, headers) if as_csv else _RENDERERS[as_json, with_headers],
    )
    asyncio.run(_tail(settings_of_a_command(), topic, shown))


#: By whether JSON and whether headers are asked for.
_RENDERERS: dict[tuple[bool, bool], record_text.Renderer] = {
    (False, False): record_text.as_line,
    (False, True): record_text.as_line_with_headers,
    (True, False): record_text.as_json,
    (True, True): record_text.as_json_with_headers,
}


def _filter(where: str, fields: list[str]) -> Filter:
    try:
        return filter_of(where, fields)
    except FilterError as error:
        raise click.BadParameter(str(error), param_hint="--where") from None


async def _tail(settings: Settings, topic: str, shown: _Shown) -> None:
    remaining = shown.count_max
    if shown.heading is not None:
        click.echo(shown.heading)
    async with aclosing(tailing.records(settings, topic, shown.since_ms)) as records:
        async for record in records:
            if shown.chosen and not shown.chosen(record_text.fields_of_value(record.value)):
                continue
            click.echo(shown.text_of(record))
            if remaining is not None:
                remaining -= 1
                if not remaining:
                    return
