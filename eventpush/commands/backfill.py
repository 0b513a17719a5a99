"""`eventpush backfill`."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from eventpush.backfill.run import FileReport, Plan, run
from eventpush.backfill.sending import Sign
from eventpush.backfill.sources import CsvMapping, size_of
from eventpush.checks import reachable_host
from eventpush.options import Assignment, as_json, command_with_examples, echo_json, settings_of_a_command
from ingress.access.signatures import signer
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings


@command_with_examples(
    "backfill",
    "eventpush backfill events.ndjson.gz",
    "eventpush backfill --rate 2000 2026-11-2*.json",
    "eventpush backfill trips.csv --column IMEI=device --column Device_Time=ts --constant Event=overspeed",
    "EVENTPUSH_INGRESS_VERIFIER=hmac-sha256 EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE=keys eventpush backfill day.json",
    "eventpush backfill events.json --url https://events.example.com/api/events --token-file ~/.eventpush-token",
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))  # fmt: skip
@click.option("--url", help="Where to send  [default: the ingress of the settings].")
@click.option("--token-file", type=click.Path(path_type=Path),
              help="File with the bearer token to send.")  # fmt: skip
@click.option("--sign-as", metavar="NAME",
              help="Name of the signature secret to sign with  [default: the first].")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0.1, 100_000), default=500, show_default=True, help="Events per second.")
@click.option("--column", "columns", type=Assignment(), multiple=True, metavar="FIELD=COLUMN",
              help="CSV: the column of a field, where it has another name.")  # fmt: skip
@click.option("--constant", "constants", type=Assignment(), multiple=True, metavar="FIELD=VALUE",
              help="CSV: a field that has the same value in every line.")  # fmt: skip
@click.option("--delimiter", default=",", show_default=True, help="CSV: what separates columns.")
@click.option("--restart", is_flag=True, help="Send the files from their beginnings again.")
@click.option("--patience", type=click.FloatRange(1, 86_400), default=300, show_default=True,
              help="Give up when nothing was accepted for this many seconds.")  # fmt: skip
@as_json
def command(
    *,
    files: tuple[Path, ...],
    url: str | None,
    token_file: Path | None,
    sign_as: str | None,
    rate: float,
    columns: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, str], ...],
    delimiter: str,
    restart: bool,
    patience: float,
    as_json: bool,
) -> None:
    """Send events from files to the ingress: NDJSON, a JSON array, or CSV (.csv), each perhaps gzipped.

    The events take the way of a webhook: the same limits, tokens and rules, the same 200 after Kafka's acknowledgement.
    Requests are signed as EVENTPUSH_INGRESS_VERIFIER says, with a secret of EVENTPUSH_INGRESS_SIGNATURE_SECRETS_FILE.
    A backfill that was ended goes on when it is run again; the few events that it may repeat then are dropped as
    duplicates. Refused events are kept in a file, with the reasons. The exit status is 1 if there are any.
    """
    if len(delimiter) != 1:
        raise click.BadParameter("give one character", param_hint="--delimiter")
    settings = settings_of_a_command()
    plan = Plan(
        files=files,
        url=url or f"http://{reachable_host(settings.ingress_host)}:{settings.ingress_port}/api/events",
        headers=_authorization(token_file),
        sign=_signer(settings, sign_as),
        rate=rate,
        mapping=CsvMapping(columns=columns, constants=constants, delimiter=delimiter),
        directory=settings.data_dir / "backfill",
        restart=restart,
        patience_s=patience,
    )
    size_bytes = sum(map(size_of, files))
    with click.progressbar(length=size_bytes, label="sending", file=sys.stderr) as bar:

        def advance(read_bytes: int) -> None:
            bar.update(max(0, read_bytes - bar.pos))

        reports = asyncio.run(run(plan, advance))
    if as_json:
        echo_json(reports)
    else:
        click.echo("\n".join(line for report in reports for line in _lines(report)))
    sys.exit(any(report.refused for report in reports))


def _signer(settings: Settings, name: str | None) -> Sign | None:
    sign = signer(settings, name)
    if name is not None and sign is None:
        raise OperatorError(
            f"--sign-as {name} needs the scheme", "set EVENTPUSH_INGRESS_VERIFIER to the one of the ingress"
        )
    return sign


def _authorization(token_file: Path | None) -> dict[str, str]:
    if token_file is None:
        return {}
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"--token-file {token_file} cannot be read ({error})", "name a readable file") from None
    if not token or len(token.split()) > 1:
        raise OperatorError(f"--token-file {token_file} holds no bearer token", "write the token alone into the file")
    return {"Authorization": f"Bearer {token}"}


def _lines(report: FileReport) -> Sequence[str]:
    lines = [f"{report.path}: {report.accepted} accepted, {report.refused} refused"]
    before = report.accepted + report.refused - report.sent
    if before:
        lines.append(f"  {before} of them in earlier runs; --restart sends them again")
    if report.refused_file:
        lines.append(f"  refused events and why: {report.refused_file}")
    return lines
