"""The command line's frame: which commands there are, and how a problem is shown.

Each command is `command` in its own module `eventpush.commands.<name>`, which is imported when the command is asked
for: `eventpush topics` does not wait for what `eventpush streams` needs.
"""

import importlib
import os
from typing import Any

import click

from eventpush.options import write_examples
from runtime.errors import Problem
from runtime.settings import PREFIX

#: The commands by section, each with its line in `eventpush --help`.
SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "up": "Start everything on this machine: Kafka, ClickHouse, ingress, stream worker, sink.",
        "ingress": "Run the HTTP door: requests into Kafka.",
        "streams": "Run a stream worker: validate, deduplicate, enrich.",
        "sink": "Run the sink: events into ClickHouse.",
    },
    "Set up": {
        "topics": "Create the topics that are missing, check the others.",
        "migrate": "Bring ClickHouse's tables up to date.",
        "devices": "Load the registry of devices.",
        "token": "Make tokens for senders.",
        "reset": "Remove the data of the stack that `up` runs.",
    },
    "Look": {
        "check": "Check settings and connections, one line each.",
        "tail": "Follow the events as they come.",
        "account": "Add up what came of every accepted event.",
    },
    "Try": {
        "simulate": "Play the sender, then count what was lost or doubled.",
    },
}

SUMMARIES: dict[str, str] = {name: text for commands in SECTIONS.values() for name, text in commands.items()}

EXAMPLES = (
    "eventpush up                                    # stays in the foreground",
    "eventpush check                                 # in a second terminal",
    "eventpush simulate --rate 100 --duration 10",
    "eventpush tail overspeed --from-beginning --max 3",
)

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Shown(click.ClickException):
    """A problem as one line on standard error, exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"eventpush: {self.message}", file=file, err=file is None)


class Commands(click.Group):
    """The group of all commands: loads them when asked for, and shows what goes wrong as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order of the help."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command of that name; None if there is none."""
        if cmd_name not in SUMMARIES:
            return None
        command: click.Command = importlib.import_module(f"eventpush.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands by section, without importing them."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()), col_max=12)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples for a first look."""
        write_examples(formatter, EXAMPLES)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; no traceback for a problem that a person can fix, nor for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except Problem as problem:
            raise _Shown(str(problem)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get(f"{PREFIX}LOG_LEVEL") == "debug":
                raise
            said = (str(error).splitlines() or [""])[0]
            raise _Shown(
                f"{type(error).__name__}: {said} (unexpected, a bug of ours: {PREFIX}LOG_LEVEL=debug shows where)"
            ) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="eventpush", message="%(prog)s %(version)s")
def cli() -> None:
    """Receive telematics events: webhook to Kafka to ClickHouse, nothing lost, nothing twice.

    Everything is set by environment variables EVENTPUSH_…; docs/settings.md lists them. Exit status: 0 when all is
    well, 1 for a problem (one line on standard error says which, and the remedy), 2 for a wrong command line.
    """
