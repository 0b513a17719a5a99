"""Try repairs on dead letters, and replay them, with `eventpush dead-letters`. The arguments are pure."""

from collections.abc import Sequence

import msgspec

from eventpush.console.own_commands import run_json
from eventpush.dead_letters.audit import Counts
from eventpush.tracing.identification import Identification

_REPLAY_TIMEOUT_S = 300.0
_TRIED_MAX = 100  # of a dry run


class Group(msgspec.Struct, frozen=True):
    """Dead letters that break one rule in one field, of one sender."""

    reason: str
    field: str
    sender: str


class Repair(msgspec.Struct, frozen=True):
    """One repair, as the form has it: what to do, with a field or pattern, and a value."""

    kind: str
    subject: str
    value: str = ""


class Preview(msgspec.Struct):
    """One dead letter of a dry run."""

    dead_letter_id: str
    before: str
    after: str | None = None
    rules: Identification | None = None
    left_out: str | None = None


class DryRun(msgspec.Struct):
    """What a replay would do."""

    results: dict[str, int]
    dead_letters: list[Preview]


class Replay(msgspec.Struct):
    """What a replay did."""

    replay_id: str
    counts: Counts


def selection(group: Group | None, letter_id: str | None) -> list[str]:
    """Return the options that select one letter, or a group."""
    if letter_id is not None:
        return [f"--id={letter_id}"]
    if group is None:
        return []
    return [f"--reason={group.reason}", f"--field={group.field}", f"--sender={group.sender}"]


def options(repairs: Sequence[Repair]) -> list[str]:
    """Return the options that repair; raise ValueError in words for a repair that is incomplete."""
    found: list[str] = []
    for repair in repairs:
        if not repair.subject:
            raise ValueError("name the field, or the text to replace")
        match repair.kind:
            case "cast":
                found.append(f"--cast={repair.subject}")
            case "replace":
                found += ["--replace", repair.subject, repair.value]
            case "set" | "rename" if "=" in repair.subject:
                raise ValueError("a field's name cannot hold “=” here: use the command line")
            case "set" | "rename":
                found.append(f"--{repair.kind}={repair.subject}={repair.value}")
            case _:
                raise ValueError(f"no such repair: {repair.kind}")
    return found


async def dry_run(chosen: list[str], repair: list[str]) -> DryRun:
    """Return what a replay would do; raise `OperatorError` if the command fails."""
    bounded = [] if chosen[0].startswith("--id") else [f"--max={_TRIED_MAX}"]
    return await run_json(DryRun, "dead-letters", "replay", "--dry-run", "--json", *bounded, *chosen, *repair)


async def replay(chosen: list[str], repair: list[str]) -> Replay:
    """Replay; raise `OperatorError` if the command fails."""
    asked = ["dead-letters", "replay", "--json", "--by=console", *chosen, *repair]
    return await run_json(Replay, *asked, timeout_s=_REPLAY_TIMEOUT_S)
