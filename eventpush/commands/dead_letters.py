"""`eventpush dead-letters`."""

import asyncio
import re
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import click

from eventpush.clickhouse_client import connected
from eventpush.dead_letters import replay as replays
from eventpush.dead_letters import script as scripts
from eventpush.dead_letters import store
from eventpush.dead_letters.preview import Preview, Summary
from eventpush.dead_letters.repair import Function, Repair
from eventpush.dead_letters.selection import Selection
from eventpush.dead_letters.text import count_lines, group_lines, letter_lines, preview_lines, summary_lines
from eventpush.moments import Moment
from eventpush.options import Assignment, as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings
from schemas.rules import Reason

_Options = Callable[[Callable[..., None]], Callable[..., None]]


@click.group("dead-letters")
def command() -> None:
    """Inspect, repair and replay dead letters."""


def _selecting(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select dead letters."""
    reasons = click.Choice([reason.value for reason in Reason])
    options: list[_Options] = [
        click.option("--reason", "reasons", type=reasons, multiple=True, metavar="CODE", help="A broken rule."),
        click.option("--field", "fields", multiple=True, help='A field that breaks a rule; "" is the whole payload.'),
        click.option("--sender", "senders", multiple=True, help='Name of the token or secret; "" is none.'),
        click.option("--since", type=Moment(), metavar="TIME", help="Received at or after, RFC 3339."),
        click.option("--until", type=Moment(), metavar="TIME", help="Received before, RFC 3339."),
        click.option("--id", "ids", type=click.UUID, multiple=True, help="One dead letter, also if it is resolved."),
        click.option("--max", "max_letters", type=click.IntRange(min=1), help="At most this many, the earliest."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _selection(given: dict[str, Any]) -> Selection:
    return Selection(
        reasons=given["reasons"],
        fields=given["fields"],
        senders=given["senders"],
        since_us=given["since"],
        until_us=given["until"],
        ids=tuple(str(letter_id) for letter_id in given["ids"]),
        max_letters=given.get("max_letters"),
    )


@command_with_examples(
    "list",
    "eventpush dead-letters list",
    "eventpush dead-letters list --by sender --by reason --since 2026-11-24",
    "eventpush dead-letters list --reason bad_format --field Device_Time --by sender",
)
@_selecting
@click.option(
    "--by",
    type=click.Choice(list(store.GROUPS)),
    multiple=True,
    default=("reason", "field", "sender"),
    show_default=True,
    help="Group by this; may be given several times.",
)
@as_json
def list_(*, by: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Count the open dead letters by reason, field, sender or time, the largest group first.

    A letter that breaks several rules counts in each group. Open letters have no event that resolves them and no newer
    attempt.
    """
    groups, letters = asyncio.run(_groups(settings_of_a_command(), _selection(given), by))
    if as_json:
        echo_json({"dead_letters": letters, "groups": groups})
    else:
        click.echo("\n".join(group_lines(groups, by, letters)))


async def _groups(settings: Settings, selection: Selection, by: tuple[str, ...]) -> tuple[list[store.Group], int]:
    async with connected(settings) as client:
        groups = await store.groups(client, selection, by, selection.max_letters or 100)
        return groups, await store.count(client, selection)


@command_with_examples("show", "eventpush dead-letters show 0f6f5d3e-8a55-4b7a-9f0e-2f3c1f0a7d11")
@click.argument("letter_id", metavar="ID", type=click.UUID)
@as_json
def show(*, letter_id: Any, as_json: bool) -> None:
    """Show one dead letter: its payload, and each broken rule beside its field."""
    letter = asyncio.run(_letter(settings_of_a_command(), str(letter_id)))
    if as_json:
        echo_json(letter)
    else:
        click.echo("\n".join(letter_lines(letter)))


async def _letter(settings: Settings, letter_id: str) -> Any:
    async with connected(settings) as client:
        letter = await store.find(client, letter_id)
    if letter is None:
        raise OperatorError(f"there is no dead letter {letter_id}", "`eventpush dead-letters list` shows examples")
    return letter


@command_with_examples(
    "replay",
    "eventpush dead-letters replay --sender fleet-b --field Device_Time --cast Device_Time --dry-run",
    "eventpush dead-letters replay --sender fleet-b --field Device_Time --cast Device_Time",
    "eventpush dead-letters replay --reason missing --field Event --set Event=sos --max 10",
    "eventpush dead-letters replay --reason wrong_type --field IMEI --cast IMEI",
    r"""eventpush dead-letters replay --id 0f6f5d3e-8a55-4b7a-9f0e-2f3c1f0a7d11 --replace '(\d\d),(\d+)' '\1.\2'""",
    "eventpush dead-letters replay --reason not_object --with repair.py:first_element --dry-run",
)
@_selecting
@click.option("--replace", "replacements", type=(str, str), multiple=True, metavar="REGEX TEXT",
              help="Replace in the payload's text (Python's re.sub).")  # fmt: skip
@click.option("--rename", "renames", type=Assignment(), multiple=True, metavar="OLD=NEW", help="Rename a field.")
@click.option("--cast", "casts", multiple=True, metavar="FIELD",
              help="Give a field the contract's type: number, string, time (from ISO 8601 or the epoch).")  # fmt: skip
@click.option("--set", "assignments", type=Assignment(), multiple=True, metavar="FIELD=VALUE", help="Set a field.")
@click.option("--with", "script", metavar="FILE:FUNCTION",
              help="Call a Python function: payload as a dict in, repaired dict out, None leaves it out.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show before, after and what the rules say of each letter; send nothing.")
@click.option("--continue", "continued", type=click.UUID, metavar="REPLAY_ID", help="Continue a replay that was ended.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=60, show_default=True,
              help="Seconds to wait for the outcomes after the last letter was sent.")  # fmt: skip
@click.option("--by", "started_by", help="Who replays, for the audit.  [default: user@host]")
@as_json
def replay(
    *, dry_run: bool, continued: Any, wait_s: float, started_by: str | None, as_json: bool, **given: Any
) -> None:
    """Repair dead letters and send them again through the raw topic.

    Repairs are made in the order --replace, --rename, --cast, --set, --with. Each letter keeps its first arrival and
    receipt. All rules apply as always: what fails again is a dead letter with the next attempt, and what has become an
    event before is dropped as a duplicate. Without --id, only open letters are selected.

    telematics.replays says who replayed what and what became of it. A replay that was killed goes on with --continue.
    The exit status is 1 if a letter failed again or its outcome is not known yet.
    """
    settings = settings_of_a_command()
    selection, repair, function = _selection(given), *_repair(given)
    if continued is not None:
        if not (selection.is_everything and repair.is_nothing):
            raise click.UsageError("--continue takes selection and repairs from the replay: give no others")
        run = asyncio.run(replays.resume(settings, str(continued)))
    elif selection.is_everything:
        raise click.UsageError("select dead letters: --reason, --field, --sender, --since, --until, --id or --max")
    elif dry_run:
        asyncio.run(_dry_run(settings, selection, repair, function, as_json=as_json))
        return
    else:
        run = asyncio.run(replays.start(settings, selection, repair, started_by or replays.this_operator()))
        click.echo(f"replay {run.replay_id} has begun; if it is ended, --continue {run.replay_id} goes on", err=True)
    summary = Summary()
    counts = asyncio.run(replays.proceed(settings, run, wait_s, summary.add))
    if as_json:
        echo_json({"replay_id": run.replay_id, "counts": counts})
    else:
        click.echo("\n".join([*summary_lines(summary), *count_lines(run.replay_id, counts)]))
    sys.exit(bool(counts.dead_letters or counts.waiting))


def _repair(given: dict[str, Any]) -> tuple[Repair, Function | None]:
    for pattern, text in given["replacements"]:
        try:
            re.sub(pattern, text, "")
        except re.error as error:
            raise click.BadParameter(f"{pattern!r} {text!r}: {error}", param_hint="--replace") from None
    function, sha256 = scripts.load(given["script"]) if given["script"] else (None, None)
    repair = Repair(
        replacements=given["replacements"],
        renames=given["renames"],
        casts=given["casts"],
        assignments=given["assignments"],
        script=given["script"],
        script_sha256=sha256,
    )
    return repair, function


async def _dry_run(
    settings: Settings, selection: Selection, repair: Repair, function: Function | None, *, as_json: bool
) -> None:
    summary, shown = Summary(), list[dict[str, Any]]()
    async with aclosing(replays.previews(settings, selection, repair, function)) as pages:
        async for page in pages:
            summary.add(page)
            if as_json:
                shown += map(_as_dict, page)
            else:
                click.echo("\n".join(line for found in page for line in preview_lines(found)))
    if as_json:
        echo_json({"results": summary.results, "dead_letters": shown})
    else:
        click.echo("\n".join(summary_lines(summary)))
        click.echo("nothing was sent")


def _as_dict(found: Preview) -> dict[str, Any]:
    return {
        "dead_letter_id": found.letter.dead_letter_id,
        "before": found.letter.payload.decode("utf-8", "backslashreplace"),
        "after": None if found.after is None else found.after.decode("utf-8", "backslashreplace"),
        "rules": found.checked,
        "left_out": found.left_out,
    }


command.add_command(list_)
command.add_command(show)
command.add_command(replay)
