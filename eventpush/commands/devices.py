"""`eventpush devices`."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import click

from eventpush import device_csv, device_loader
from eventpush.device_csv import BadLine, DeviceRow
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.errors import OperatorError
from schemas import times

_SHOWN_MAX = 1_000  # bad lines; a file with more is probably not a device file


@click.group("devices")
def command() -> None:
    """Load the device registry: vehicle, fleet and driver by IMEI, now and in the past.

    A change applies to the device's next event, without a restart. Events of unregistered devices have nulls instead.
    """


@command_with_examples(
    "load",
    "(echo imei,vehicle,fleet,driver; echo 350612075195931,MP09-HG-1234,Indore,A. Rao) > fleet.csv",
    "eventpush devices load fleet.csv",
    "eventpush devices load fleet.csv --replace            # also remove devices that are not in it",
    "(echo imei,vehicle,fleet,driver,valid_from; echo 350612075195931,MP09,Indore,B. Sen,2026-06-01) > fleet.csv",
    "eventpush devices load fleet.csv                      # B. Sen has driven it since 1 June",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Load the valid lines even if others are bad.")
@click.option("--replace", is_flag=True, help="Remove devices that are not in the file.")
@as_json
def _load(file: Path, *, skip_bad: bool, replace: bool, as_json: bool) -> None:
    r"""Load a CSV file in UTF-8 with the columns imei, vehicle, fleet and driver into telematics.devices.v1.

    The header line is required; the columns may be in any order; an empty field means null. Names may use any script,
    but no control characters. Every bad line is reported, and nothing is loaded if there is one, unless --skip-bad is
    given. A load is one transaction. The same file again changes nothing.

    \b
    Optional columns:
      valid_from  since when it holds, such as 2026-06-01 or 2026-06-01T08:00:00+05:30 (without an offset: UTC).
                  The line replaces what the registry says of its period, and nothing else. With it, a device may
                  have several lines, which must not overlap. Empty: from now on, or from the beginning for a
                  device that is new.
      valid_to    until when, not included; empty: up to the device's next line, or until further notice.
      delete      yes: the device is in nobody's vehicle in that period; forget: remove it with its history.
    """
    settings = settings_of_a_command()
    good, bad = _check(file)
    if bad and not skip_bad:
        raise OperatorError(f"{file}: {len(bad)} bad lines, nothing loaded", "fix them, or use --skip-bad")
    if replace and not good:
        raise OperatorError(f"{file} has no devices: --replace would remove all", "use a file with at least one device")
    now = times.rfc3339(time.time_ns() // 1000)
    done = asyncio.run(
        device_loader.load(settings, _valid_rows(file), now, replace=replace, on_progress=_show_progress)
    )
    if as_json:
        bad_lines = [{"line": line.line, "why": line.why} for line in bad]
        echo_json({"loaded": done.loaded, "unchanged": done.unchanged, "removed": done.removed, "bad_lines": bad_lines})
    else:
        click.echo(
            f"{done.loaded} devices loaded ({done.unchanged} unchanged), {done.removed} removed, "
            f"{len(bad)} bad lines skipped"
        )


def _check(file: Path) -> tuple[int, list[BadLine]]:
    """Return the number of valid lines and the bad lines, which are also reported."""
    good, bad = 0, []
    with file.open(encoding="utf-8", newline="") as text:
        for found in device_csv.read(text):
            if isinstance(found, DeviceRow):
                good += 1
            else:
                bad.append(found)
                if len(bad) <= _SHOWN_MAX:
                    click.echo(f"{file}: {found}", err=True)
    return good, bad


def _valid_rows(file: Path) -> Iterator[DeviceRow]:
    with file.open(encoding="utf-8", newline="") as text:
        yield from (found for found in device_csv.read(text) if isinstance(found, DeviceRow))


def _show_progress(written: int, total: int) -> None:
    end = "\n" if written >= total else ""
    click.echo(f"\r{written} of {total} changes written{end}", err=True, nl=False)


command.add_command(_load)
