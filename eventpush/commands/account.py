"""`eventpush account`."""

import asyncio
import sys
from collections.abc import Mapping, Sequence

import click
import msgspec
from prometheus_client import REGISTRY, generate_latest

from eventpush import accounting
from eventpush.account import BY, Line, summed
from eventpush.accounting import Account
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from eventpush.tailing import printable
from runtime.platform import metrics

_COLUMNS = ("accepted", "stored", "duplicate", "dead-lettered")


@command_with_examples(
    "account",
    "eventpush account",
    "eventpush account --by both",
    "eventpush account --json | jq .remainders",
    "eventpush account --metrics | sponge eventpush.prom",
)
@click.option(
    "--by",
    type=click.Choice(["type", "minute", "both"]),
    default="type",
    show_default=True,
    help="What to group by: the event's type, the minute of its arrival, or both.",
)
@click.option("--metrics", "as_metrics", is_flag=True, help="Print it as metrics in Prometheus' text format.")
@as_json
def command(*, by: str, as_metrics: bool, as_json: bool) -> None:
    """Add up what came of every accepted event: accepted = stored + duplicate + dead-lettered + in flight.

    It is computed from what Kafka and ClickHouse hold, not from counters in memory: raw offsets, the summary that the
    stream stage commits with each batch, and the rows. What does not add up is named by partition and raw offsets.

    The exit status is 1 if there is such a remainder. What is in flight is none.
    """
    account = asyncio.run(accounting.gather(settings_of_a_command()))
    grouped = summed(account.lines, BY[by])
    if as_metrics:
        click.echo(_as_metrics(account), nl=False)
    elif as_json:
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


def _as_metrics(account: Account) -> str:
    for event, line in summed(account.lines, BY["type"]).items():
        for outcome in ("accepted", "stored", "duplicate"):
            metrics.ACCOUNT_EVENTS.metric.labels(event, outcome).set(getattr(line, outcome))
        metrics.ACCOUNT_EVENTS.metric.labels(event, "dead_lettered").set(line.stored_dead_letters)
    metrics.ACCOUNT_IN_FLIGHT.metric.labels("streams").set(sum(c.in_flight for c in account.coverages))
    metrics.ACCOUNT_IN_FLIGHT.metric.labels("sink").set(account.to_clickhouse)
    remainders = metrics.ACCOUNT_REMAINDER.metric  # without any it is there all the same, and empty
    for found in account.remainders:
        remainders.labels(str(found.partition), str(found.first), str(found.next), found.why).set(found.events)
    names = [metric.name for metric in (metrics.ACCOUNT_EVENTS, metrics.ACCOUNT_IN_FLIGHT, metrics.ACCOUNT_REMAINDER)]
    return generate_latest(REGISTRY.restricted_registry(names)).decode()


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
