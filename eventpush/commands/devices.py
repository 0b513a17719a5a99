"""`eventpush devices`."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from eventpush import device_csv, device_loader
from eventpush.device_csv import BadLine, DeviceRow
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.errors import OperatorError

_SHOWN_MAX = 1_000  # bad lines; a file with more is probably not a device file


@click.group("devices")
def command() -> None:
    """Load the device registry: vehicle, fleet and driver by IMEI.

    A change applies to the device's next event, without a restart. Events of unregistered devices have nulls instead.
    """


@command_with_examples(
    "load",
    "(echo imei,vehicle,fleet,driver; echo 350612075195931,MP09-HG-1234,Indore,A. Rao) > fleet.csv",
    "eventpush devices load fleet.csv",
    "eventpush devices load fleet.csv --replace            # also remove devices that are not in it",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Load the valid lines even if others are bad.")
@click.option("--replace", is_flag=True, help="Remove devices that are not in the file.")
@as_json
def _load(file: Path, *, skip_bad: bool, replace: bool, as_json: bool) -> None:
    """Load a CSV file in UTF-8 with the columns imei, vehicle, fleet and driver into telematics.devices.v1.

    The header line is required; the columns may be in any order; an empty field means null. An additional column
    `delete` with "yes" removes a device. Names may use any script, but no control characters. Every bad line is
    reported, and nothing is loaded if there is one, unless --skip-bad is given.
    """
    settings = settings_of_a_command()
    good, bad = _check(file)
    if bad and not skip_bad:
        raise OperatorError(f"{file}: {len(bad)} bad lines, nothing loaded", "fix them, or use --skip-bad")
    if replace and not good:
        raise OperatorError(f"{file} has no devices: --replace would remove all", "use a file with at least one device")
    progress = _progress(good)
    loaded, removed = asyncio.run(
        device_loader.load(settings, _valid_rows(file), replace=replace, on_progress=progress)
    )
    if as_json:
        echo_json({"loaded": loaded, "removed": removed, "bad_lines": [{"line": b.line, "why": b.why} for b in bad]})
    else:
        click.echo(f"{loaded} devices loaded, {removed} removed, {len(bad)} bad lines skipped")


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


def _progress(total: int) -> Callable[[int], None]:
    def show(written: int) -> None:
        end = "\n" if written >= total else ""
        click.echo(f"\r{written} of {total} devices written{end}", err=True, nl=False)

    return show


command.add_command(_load)
