"""`eventpush erase`."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from eventpush.erasure.erase import Certificate, erase, erase_restored, verify
from eventpush.erasure.subject import Subject
from eventpush.options import command_with_examples, echo_json, settings_of_a_command
from eventpush.text import has_control_characters
from runtime.platform.errors import OperatorError
from schemas.device import NAME_MAX


class Imei(click.ParamType):
    """15 digits."""

    name = "imei"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the IMEI."""
        if not re.fullmatch(r"[0-9]{15}", str(value)):
            self.fail(f"{value!r} is not an IMEI: 15 digits", param, ctx)
        return str(value)


def _echo(report: object, *, as_json: bool) -> None:
    if as_json:
        echo_json(report)
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())


def _certificate(file: Path) -> Certificate:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Certificate)
    except (OSError, msgspec.MsgspecError) as error:
        raise OperatorError(f"{file} is not a certificate of an erasure ({error})", "leave it out") from None


@command_with_examples(
    "erase",
    "eventpush erase --imei 350612075195931 | tee certificate.json",
    "eventpush erase --imei 350612075195931 --driver 'A. Rao' | tee certificate.json",
    "eventpush erase --after-restore                        # and the certificates, if Kafka was lost",
    "eventpush erase --imei 350612075195931 --verify | jq '.stores[] | select(.found > 0)'",
)
@click.option("--imei", type=Imei(), help="The device.")
@click.option("--driver", help="The driver, as the registry spells the name.")
@click.option("--verify", "only_verify", is_flag=True, help="Change nothing; search every store for what is left.")
@click.option("--after-restore", is_flag=True, help="Erase whoever is on the deny list once more.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON on one line.")
@click.argument("certificates", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(
    *,
    imei: str | None,
    driver: str | None,
    only_verify: bool,
    after_restore: bool,
    as_json: bool,
    certificates: tuple[Path, ...],
) -> None:
    """Erase a device, a driver, or both from every store, and print a certificate as JSON.

    Deletes physically from ClickHouse, deletes the keys of compacted topics, and puts the device on a deny list, so
    that what Kafka still keeps is never stored again. The certificate says when retention has removed that too. With a
    driver, the events of all devices that name the driver are deleted, and the name is removed from the registry.

    There is no way back. An erasure that was ended is run again and continues. The exit status is 1 if something is
    left that no retention removes; see problems, or for --verify the stores with found above 0. Needs
    EVENTPUSH_ERASURE_KEY, the same as every stream worker and sink.

    After a restore, --after-restore erases all that are on the deny list once more. If Kafka was lost too, give it the
    certificates: it puts their entries back on the list.
    """
    if after_restore and imei is None and driver is None and not only_verify:
        restored = erase_restored(settings_of_a_command(), [_certificate(file) for file in certificates])
        _echo(asyncio.run(restored), as_json=as_json)
        return
    if after_restore or certificates:
        raise click.UsageError("--after-restore goes with certificates, and with nothing else")
    if imei is None and driver is None:
        raise click.UsageError("nobody is named: use --imei, --driver, or both")
    if driver is not None and (not driver.strip() or len(driver) > NAME_MAX or has_control_characters(driver)):
        raise click.UsageError(f"--driver {driver!r} is not a name of the registry: 1 to {NAME_MAX} characters")
    settings, subject = settings_of_a_command(), Subject(imei, driver)
    if only_verify:
        found = asyncio.run(verify(settings, subject))
        _echo(found, as_json=as_json)
        sys.exit(bool(found.found))
    certificate = asyncio.run(erase(settings, subject))
    _echo(certificate, as_json=as_json)
    sys.exit(not certificate.complete)
