"""Dead letters, previews and replays as text for a terminal. Pure."""

import json
from collections.abc import Iterator, Sequence

from eventpush.dead_letters.audit import Counts
from eventpush.dead_letters.letter import Letter
from eventpush.dead_letters.preview import Preview, Summary
from eventpush.dead_letters.store import Group
from eventpush.text import printable
from schemas import times
from schemas.dead_letter import Violation
from schemas.json_text import NotJsonError, compact, members_of

_SHOWN_MAX = 2_000  # characters of a payload that is no JSON object


def group_lines(groups: Sequence[Group], by: Sequence[str], letters: int) -> Iterator[str]:
    """Yield a table of groups, the largest first."""
    rows = [
        (
            str(group.letters),
            *(group.by[name] or "-" for name in by),
            group.first_received[:19],
            group.last_received[:19],
            group.example,
        )
        for group in groups
    ]
    header = ("letters", *by, "first received", "last received", "example")
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    for row in (header, *rows):
        yield printable("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    yield f"{letters} dead letters"


def letter_lines(letter: Letter) -> Iterator[str]:
    """Yield everything about a dead letter, each broken rule beside its field."""
    yield f"dead letter {letter.dead_letter_id}"
    yield f"  received     {times.rfc3339(letter.received_us)}, receipt {letter.receipt_id or '-'}"
    yield printable(f"  sender       {letter.sender or '-'}")
    yield f"  stage        {letter.stage}"
    yield f"  record       {letter.raw_topic} partition {letter.raw_partition} offset {letter.raw_offset}"
    if letter.replay_of:
        yield f"  replay       attempt {letter.attempt} of dead letter {letter.replay_of}"
    if letter.conflict_with_event_id:
        yield f"  conflict     with event {letter.conflict_with_event_id}"
    if letter.resolved_by_event_id:
        yield f"  resolved by  event {letter.resolved_by_event_id}"
    yield ""
    yield from payload_lines(letter.payload, letter.reasons)


def payload_lines(payload: bytes, violations: Sequence[Violation]) -> Iterator[str]:
    """Yield a payload, one member a line, and each broken rule beside its field; those of no field come first."""
    try:
        members = members_of(payload)
    except NotJsonError:
        members = None
    names = {member.name for member in members or ()}
    for violation in violations:
        if violation.field not in names:
            yield _rule(f"{violation.field or 'payload'}: ", violation)
    if members is None:
        yield printable(f"  {payload[:_SHOWN_MAX].decode('utf-8', 'backslashreplace')}")
        return
    yield "{"
    for at, member in enumerate(members):
        comma = "," if at < len(members) - 1 else ""
        yield printable(f"  {member.name_text}: {compact(member.value_text)}{comma}")
        for violation in violations:
            if violation.field == member.name:
                yield _rule("    ^ ", violation)
    yield "}"


def preview_lines(found: Preview) -> Iterator[str]:
    """Yield what a replay would do with a dead letter: before, after, and what the rules say."""
    yield f"dead letter {found.letter.dead_letter_id}"
    yield printable(f"  before   {_one_line(found.letter.payload)}")
    if found.after is None or found.checked is None:
        yield printable(f"  left out {found.left_out}")
        return
    yield printable(
        f"  after    {_one_line(found.after)}" if found.after != found.letter.payload else "  after    unchanged"
    )
    if found.checked.valid:
        yield f"  rules    valid: event {found.checked.event_id}"
    for violation in found.checked.violations:
        yield _rule(f"  rules    {violation.field or 'payload'}: ", violation)


def summary_lines(summary: Summary) -> Iterator[str]:
    """Yield how many letters got which result, and why not the best one."""
    letters = sum(summary.results.values())
    parts = ", ".join(f"{count} {label}" for label, count in summary.results.most_common())
    yield f"{letters} dead letters selected" + (f": {parts}" if parts else "")
    for (field, code), count in summary.reasons.most_common():
        yield printable(f"  {count} still break {code} in {field}")
    for why, count in summary.left_out.most_common():
        yield printable(f"  {count} left out: {why}")


def count_lines(replay_id: str, counts: Counts) -> Iterator[str]:
    """Yield what became of a replay."""
    yield f"replay {replay_id}: {counts.sent} of {counts.selected} dead letters sent"
    yield f"  {counts.events} are events now"
    if counts.dead_letters:
        yield f"  {counts.dead_letters} failed again: dead letters with the next attempt, never replayed by themselves"
    if counts.left_out:
        yield f"  {counts.left_out} left out"
    if counts.waiting:
        yield (
            f"  {counts.waiting} on their way: `eventpush dead-letters replay --continue {replay_id}` records what"
            " becomes of them"
        )


def _rule(before: str, violation: Violation) -> str:
    return printable(f"{before}{violation.code}: found {violation.found}, expected {violation.expected}")


def _one_line(payload: bytes) -> str:
    text = payload[:_SHOWN_MAX].decode("utf-8", "backslashreplace")
    try:
        return json.dumps(json.loads(payload), ensure_ascii=False) if len(payload) <= _SHOWN_MAX else f"{text}…"
    except (ValueError, RecursionError):
        return text
