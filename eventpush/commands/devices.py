"""`eventpush devices`."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from eventpush import devices
from eventpush.devices import BadLine, Device
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command
from runtime.platform.errors import OperatorError

_SHOWN_MAX = 1_000  # bad lines; a file that has more is not what it seems


@click.group("devices")
def command() -> None:
    """Load the registry of devices: vehicle, fleet and driver by IMEI.

    A change shows on the device's next event, without a restart. A device that the registry does not have passes
    with nulls.
    """


@command_with_examples(
    "load",
    "(echo imei,vehicle,fleet,driver; echo 350612075195931,MP09-HG-1234,Indore,A. Rao) > fleet.csv",
    "eventpush devices load fleet.csv",
    "eventpush devices load fleet.csv --replace            # and remove those that are not in it",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Load the good lines of a file that has bad ones.")
@click.option("--replace", is_flag=True, help="Remove the devices that the file does not name.")
@as_json
def _load(file: Path, *, skip_bad: bool, replace: bool, as_json: bool) -> None:
    """Load a CSV file in UTF-8 with the columns imei, vehicle, fleet and driver into telematics.devices.v1.

    The header line is required, the columns may stand in any order, and an empty field means that there is none. An
    additional column `delete` with "yes" removes a device. Every bad line is reported; nothing is loaded if there is
    one, unless --skip-bad is given.
    """
    settings = settings_of_a_command()
    good, bad = _judged(file)
    if bad and not skip_bad:
        raise OperatorError(f"{file}: {len(bad)} bad lines, nothing loaded", "mend them, or give --skip-bad")
    if replace and not good:
        raise OperatorError(
            f"{file} names no device: --replace would remove all", "give a file with at least one device"
        )
    progress = _progress(good)
    loaded, removed = asyncio.run(devices.load(settings, _good(file), replace=replace, on_progress=progress))
    if as_json:
        echo_json({"loaded": loaded, "removed": removed, "bad_lines": [{"line": b.line, "why": b.why} for b in bad]})
    else:
        click.echo(f"{loaded} devices loaded, {removed} removed, {len(bad)} bad lines skipped")


def _judged(file: Path) -> tuple[int, list[BadLine]]:
    """How many good lines the file has, and its bad ones, which are also reported."""
    good, bad = 0, []
    with file.open(encoding="utf-8", newline="") as text:
        for found in devices.read(text):
            if isinstance(found, Device):
                good += 1
            else:
                bad.append(found)
                if len(bad) <= _SHOWN_MAX:
                    click.echo(f"{file}: {found}", err=True)
    return good, bad


def _good(file: Path) -> Iterator[Device]:
    with file.open(encoding="utf-8", newline="") as text:
        yield from (found for found in devices.read(text) if isinstance(found, Device))


def _progress(total: int) -> Callable[[int], None]:
    def show(written: int) -> None:
        end = "\n" if written >= total else ""
        click.echo(f"\r{written} of {total} devices written{end}", err=True, nl=False)

    return show


command.add_command(_load)
