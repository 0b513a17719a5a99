"""`eventpush check`."""

import asyncio
import sys

import click

from eventpush import checks
from eventpush.options import as_json, command_with_examples, echo_json, settings_of_a_command


@command_with_examples(
    "check",
    "eventpush check",
    "eventpush check --json | jq '.[] | select(.state != \"ok\")'",
    "eventpush check && eventpush simulate",
)
@as_json
def command(*, as_json: bool) -> None:
    """Check settings and connections, one line each; the exit status is 1 if a check failed.

    A process that does not run here is a warning, not a failure: it may run on another machine.
    """
    findings = asyncio.run(checks.run(settings_of_a_command()))
    if as_json:
        echo_json(findings)
    else:
        click.echo("\n".join(map(str, findings)))
    sys.exit(any(finding.state == "failed" for finding in findings))
