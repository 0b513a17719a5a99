"""`eventpush token`."""

import click

from eventpush.options import as_json, command_with_examples, echo_json
from ingress.access.tokens import new


@click.group("token")
def command() -> None:
    """Create tokens for senders."""


@command_with_examples(
    "new",
    "eventpush token new acme",
    "eventpush token new acme-2027 --json",
    "EVENTPUSH_INGRESS_TOKENS_FILE=tokens.txt eventpush ingress      # the file holds the second line",
)
@click.argument("name")
@as_json
def _new(name: str, *, as_json: bool) -> None:
    """Create a bearer token called NAME: print the sender's header and the line for the tokens file.

    The token is shown once and stored nowhere; the line holds only its hash. Append `until=2027-01-31` to the line to
    let the token expire, so that an old and a new token are both valid while the sender switches.
    """
    token, line = new(name)
    if as_json:
        echo_json({"token": token, "line": line})
    else:
        click.echo(f"for the sender:                     Authorization: Bearer {token}")
        click.echo(f"for EVENTPUSH_INGRESS_TOKENS_FILE:  {line}")


command.add_command(_new)
