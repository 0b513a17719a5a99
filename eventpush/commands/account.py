"""`eventpush account`."""

import asyncio
import sys
from collections.abc import Mapping, Sequence

import click
import msgspec

from eventpush import accounting
from eventpush.account import BY, Line, summed
from eventpush.accounting import Account
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from eventpush.tailing import printable

_COLUMNS = ("accepted", "stored", "duplicate", "dead-lettered")


@command_with_examples(
    "account",
    "eventpush account",
    "eventpush account --by both",
    "eventpush account --json | jq .remainders",
)
@click.option(
    "--by",
    type=click.Choice(["type", "minute", "both"]),
    default="type",
    show_default=True,
    help="What to group by: the event's type, the minute of its arrival, or both.",
)
@as_json
def command(*, by: str, as_json: bool) -> None:
    """Add up what came of every accepted event: accepted = stored + duplicate + dead-lettered + in flight.

    It is computed from what Kafka and ClickHouse hold, not from counters in memory: raw offsets, the summary that the
    stream stage commits with each batch, and the rows. What does not add up is named by partition and raw offsets.

    The exit status is 1 if there is such a remainder. What is in flight is none.
    """
    account = asyncio.run(accounting.gather(settings_of_a_command()))
    grouped = summed(account.lines, BY[by])
    if as_json:
        echo_json(_as_dict(account, grouped))
    else:
        click.echo(_readable(account, grouped, by))
    sys.exit(bool(account.remainders))


def _as_dict(account: Account, grouped: Mapping[str, Line]) -> dict[str, object]:
    return {
        "accepted": sum(coverage.accepted for coverage in account.coverages),
        "in_flight": {"streams": sum(c.in_flight for c in account.coverages), "sink": account.to_clickhouse},
        "total": summed(account.lines, BY["all"]).get("all", Line()),
        "groups": grouped,
        "lines": [
            {"minute": minute, "event": event} | msgspec.structs.asdict(line)
            for (minute, event), line in account.lines.items()
        ],
        "partitions": account.coverages,
        "remainders": account.remainders,
    }


def _readable(account: Account, grouped: Mapping[str, Line], by: str) -> str:
    total = summed(account.lines, BY["all"]).get("all", Line())
    width = max(14, *(len(name) for name in (*grouped, "")))
    rows = [_row(by, _COLUMNS, width)]
    for name, line in (*grouped.items(), ("all", total)):
        cells = (line.accepted, line.stored, line.duplicate, line.stored_dead_letters)
        rows.append(_row(printable(name).strip() or "(blank)", cells, width))
    judging = sum(coverage.in_flight for coverage in account.coverages)
    rows.append(f"in flight: {judging} to be judged, {account.to_clickhouse} to be stored")
    if not account.remainders:
        accepted = sum(coverage.accepted for coverage in account.coverages)
        return "\n".join([*rows, f"all {accepted} accepted events are accounted for"])
    return "\n".join([*rows, *(f"remainder: {remainder}" for remainder in account.remainders)])


def _row(name: str, cells: Sequence[object], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell!s:>16}" for cell in cells)
