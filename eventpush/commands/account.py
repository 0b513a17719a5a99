"""`eventpush account`."""

import asyncio
import sys
from collections.abc import Mapping, Sequence

import click
import msgspec
from prometheus_client import REGISTRY, generate_latest

from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from eventpush.reconciliation.arithmetic import BY, OutcomeCounts, aggregate
from eventpush.reconciliation.reconcile import Reconciliation, reconcile
from eventpush.text import quoted
from runtime.platform import metrics

_COLUMNS = ("accepted", "replayed", "stored", "duplicate", "dead-lettered")


@command_with_examples(
    "account",
    "eventpush account",
    "eventpush account --by both",
    "eventpush account --json | jq .discrepancies",
    "eventpush account --metrics | sponge eventpush.prom",
)
@click.option(
    "--by",
    type=click.Choice(["type", "minute", "both"]),
    default="type",
    show_default=True,
    help="Group by event type, minute of arrival, or both.",
)
@click.option("--metrics", "as_metrics", is_flag=True, help="Print metrics in Prometheus' text format.")
@as_json
def command(*, by: str, as_metrics: bool, as_json: bool) -> None:
    """Reconcile every event: accepted + replayed = stored + duplicate + dead-lettered + in flight.

    Accepted are the events from senders, replayed those that `eventpush dead-letters replay` sent again.

    The counts come from Kafka and ClickHouse, not from counters in memory: raw offsets, the summary that the stream
    stage commits with each batch, and the rows. Discrepancies are listed by partition and raw offsets.

    The exit status is 1 if there is a discrepancy. Events in flight are not one.
    """
    reconciliation = asyncio.run(reconcile(settings_of_a_command()))
    grouped = aggregate(reconciliation.outcomes, BY[by])
    if as_metrics:
        click.echo(_as_metrics(reconciliation), nl=False)
    elif as_json:
        echo_json(_as_dict(reconciliation, grouped))
    else:
        click.echo(_readable(reconciliation, grouped, by))
    sys.exit(bool(reconciliation.discrepancies))


def _as_dict(reconciliation: Reconciliation, grouped: Mapping[str, OutcomeCounts]) -> dict[str, object]:
    return {
        "accepted": reconciliation.accepted,
        "replayed": reconciliation.replayed,
        "in_flight": _in_flight(reconciliation),
        "total": aggregate(reconciliation.outcomes, BY["all"]).get("all", OutcomeCounts()),
        "groups": grouped,
        "lines": [
            {"minute": minute, "event": event} | msgspec.structs.asdict(line)
            for (minute, event), line in reconciliation.outcomes.items()
        ],
        "partitions": reconciliation.coverages,
        "discrepancies": reconciliation.discrepancies,
        "on_deny_list": reconciliation.erased,
    }


def _in_flight(reconciliation: Reconciliation) -> dict[str, int]:
    """Count the events on their way, by the stage that they wait for."""
    streams = sum(coverage.in_flight for coverage in reconciliation.coverages)
    return {"streams": streams, "sink": reconciliation.to_clickhouse}


def _as_metrics(reconciliation: Reconciliation) -> str:
    for event, line in aggregate(reconciliation.outcomes, BY["type"]).items():
        for outcome in ("accepted", "replayed", "stored", "duplicate"):
            metrics.ACCOUNT_EVENTS.metric.labels(event, outcome).set(getattr(line, outcome))
        metrics.ACCOUNT_EVENTS.metric.labels(event, "dead_lettered").set(line.stored_dead_letters)
    for stage, events in _in_flight(reconciliation).items():
        metrics.ACCOUNT_IN_FLIGHT.metric.labels(stage).set(events)
    discrepancies = metrics.ACCOUNT_REMAINDER.metric  # exported even if empty
    for found in reconciliation.discrepancies:
        discrepancies.labels(str(found.partition), str(found.first), str(found.next), found.why).set(found.events)
    names = [metric.name for metric in (metrics.ACCOUNT_EVENTS, metrics.ACCOUNT_IN_FLIGHT, metrics.ACCOUNT_REMAINDER)]
    return generate_latest(REGISTRY.restricted_registry(names)).decode()


def _readable(reconciliation: Reconciliation, grouped: Mapping[str, OutcomeCounts], by: str) -> str:
    total = aggregate(reconciliation.outcomes, BY["all"]).get("all", OutcomeCounts())
    labelled = [(_label(group, by), counts) for group, counts in grouped.items()] + [("all", total)]
    width = max(14, *(len(label) for label, _ in labelled))
    rows = [_row(by, _COLUMNS, width)]
    for label, counts in labelled:
        cells = (counts.accepted, counts.replayed, counts.stored, counts.duplicate, counts.stored_dead_letters)
        rows.append(_row(label, cells, width))
    in_flight = _in_flight(reconciliation)
    rows.append(f"in flight: {in_flight['streams']} to be processed, {in_flight['sink']} to be stored")
    if reconciliation.discrepancies:
        rows += [f"discrepancy: {discrepancy}" for discrepancy in reconciliation.discrepancies]
    else:
        replayed = f" and {reconciliation.replayed} replayed" if reconciliation.replayed else ""
        if reconciliation.erased:
            rows.append(f"{reconciliation.erased} devices or drivers were erased: their events are not stored any more")
        rows.append(f"all {reconciliation.accepted} accepted{replayed} events are accounted for")
    return "\n".join(rows)


def _label(group: str, by: str) -> str:
    """Quote the event type in a group's label, so that `overspeed` and `overspeed ` differ."""
    if by == "type":
        return quoted(group)
    minute, blank, event = group.partition(" ")
    return f"{minute} {quoted(event)}" if blank else minute


def _row(name: str, cells: Sequence[object], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell!s:>16}" for cell in cells)
