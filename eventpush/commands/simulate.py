"""`eventpush simulate`."""

import asyncio
import sys
from pathlib import Path

import click

from eventpush.checks import reachable_host
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from eventpush.simulation.fleet import Shares
from eventpush.simulation.run import SimulationPlan, SimulationReport, simulate

_SHARE = click.FloatRange(0, 0.5)
_DEFAULT = Shares()


@command_with_examples(
    "simulate",
    "eventpush simulate",
    "eventpush simulate --devices 200 --rate 500 --duration 60",
    "eventpush simulate --seed 7 && eventpush simulate --seed 7      # the second run adds no row",
    'eventpush simulate --url https://events.example.com/api/events --token "$TOKEN" --json',
)
@click.option("--url", help="Where to send [default: the ingress of the settings].")
@click.option("--token", help="Bearer token to send.")
@click.option("--ca-file", type=click.Path(exists=True, path_type=Path), help="CA certificates for an https URL.")
@click.option("--devices", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Size of the fleet.")
@click.option("--rate", type=click.FloatRange(0.1, 100_000), default=100, show_default=True, help="Events per second.")
@click.option(
    "--duration", type=click.FloatRange(1, 86_400), default=30, show_default=True, help="Sending time in seconds."
)
@click.option("--seed", type=click.IntRange(0, 999_999), default=1, show_default=True, help="Same seed, same events.")
@click.option(
    "--repeated", type=_SHARE, default=_DEFAULT.repeated, show_default=True, help="Share of events sent twice."
)
@click.option(
    "--invalid", type=_SHARE, default=_DEFAULT.invalid, show_default=True, help="Share of events that break a rule."
)
@click.option(
    "--conflicting",
    type=_SHARE,
    default=_DEFAULT.conflicting,
    show_default=True,
    help="Share of events that conflict with an earlier one.",
)
@click.option(
    "--late", type=_SHARE, default=_DEFAULT.late, show_default=True, help="Share of devices that report hours late."
)
@click.option(
    "--lost-answers",
    type=_SHARE,
    default=0.02,
    show_default=True,
    help="Share of answers that the sender does not receive.",
)
@click.option(
    "--patience",
    type=click.FloatRange(1, 86_400),
    default=60,
    show_default=True,
    help="Seconds without progress to wait for the pipeline to drain.",
)
@as_json
def command(
    *,
    url: str | None,
    token: str | None,
    ca_file: Path | None,
    devices: int,
    rate: float,
    duration: float,
    seed: int,
    repeated: float,
    invalid: float,
    conflicting: float,
    late: float,
    lost_answers: float,
    patience: float,
    as_json: bool,
) -> None:
    """Simulate a sender with a fleet of vehicles, then check what became of every event.

    The fleet reports all event types, in order by device. Some devices are late or out of order; some events are sent
    twice, break a rule or conflict with an earlier one. Any answer but 200 and any lost answer is retried with
    exponential backoff. At the end it waits for the pipeline to drain and compares with ClickHouse and
    telematics.events.v1.

    The exit status is 0 if nothing is lost or duplicated. Lost means answered 200 but in no table.
    """
    settings = settings_of_a_command()
    scheme = "https" if settings.ingress_tls_cert_file else "http"
    url = url or f"{scheme}://{reachable_host(settings.ingress_host)}:{settings.ingress_port}/api/events"
    shares = Shares(repeated=repeated, invalid=invalid, conflicting=conflicting, late=late)
    plan = SimulationPlan(url, devices, rate, duration, seed, shares, lost_answers, token, ca_file, patience)
    report = asyncio.run(simulate(settings, plan, lambda line: click.echo(line, err=True)))
    if as_json:
        echo_json(report)
    else:
        click.echo(_readable(report))
    sys.exit(not report.clean)


def _readable(report: SimulationReport) -> str:
    seconds = [f"{delay:.2f} s" if delay is not None else "-" for delay in (report.delay_p50_s, report.delay_p99_s)]
    answers = ", ".join(f"{count} × {answer}" for answer, count in sorted(report.answers.items()))
    lines = [
        ("sent", f"{report.sent} events in {report.requests} requests ({answers})"),
        ("unacknowledged", f"{report.unacknowledged}"),
        ("unique", f"{report.unique} ({report.already_stored} stored by an earlier run)"),
        ("duplicates dropped", f"{report.duplicates_dropped}"),
        ("dead-lettered", f"{report.dead_lettered}"),
        ("lost", f"{report.lost}"),
        ("doubled", f"{report.doubled} rows, {report.doubled_messages} messages"),
        ("visible after", f"p50 {seconds[0]}, p99 {seconds[1]} ({report.delay_samples} samples)"),
    ]
    if not report.drained:
        lines.append(("note", "the pipeline did not drain in time: lost events may only be late"))
    return "\n".join(f"{name:<20}{text}" for name, text in lines)
