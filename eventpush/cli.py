"""The command line: the list of commands, and how errors are shown.

Each command is `command` in its module `eventpush.commands.<name>` (hyphens as underscores), imported on first use:
`eventpush topics` does not wait for the imports of `eventpush streams`.
"""

import importlib
import os
from typing import Any

import click

from eventpush.options import write_examples
from runtime.platform.errors import OperatorError
from runtime.platform.settings import PREFIX

#: The commands by section, each with its line in `eventpush --help`.
SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "up": "Start everything on this machine: Kafka, ClickHouse, the services, the console.",
        "ingress": "Run the HTTP ingress: requests into Kafka.",
        "streams": "Run a stream worker: validate, deduplicate, enrich.",
        "sink": "Run the sink: events into ClickHouse.",
        "console": "Run the web console for operators.",
        "sse": "Serve events as server-sent events.",
    },
    "Set up": {
        "topics": "Create missing topics, check the others, add partitions.",
        "migrate": "Bring ClickHouse's schema up to date.",
        "grants": "Print SQL for roles that only read ClickHouse's views.",
        "devices": "Load the device registry.",
        "token": "Create tokens for senders.",
        "reset": "Remove all data of `up`.",
        "backfill": "Send events from files to the ingress.",
        "erase": "Erase a device or a driver from every store.",
    },
    "Inspect": {
        "check": "Check settings and connections, one line each.",
        "tail": "Follow events as they arrive.",
        "trace": "Show the whole way of one event, stage by stage.",
        "dead-letters": "List, show, repair and replay dead letters.",
        "account": "Reconcile accepted events with stored rows.",
        "contract": "Export the contract with subscribers.",
        "size": "Compute what a load needs, from the benchmark.",
    },
    "Try": {
        "simulate": "Simulate a sender, then count lost and duplicated events.",
    },
}

SUMMARIES: dict[str, str] = {name: text for commands in SECTIONS.values() for name, text in commands.items()}

EXAMPLES = (
    "eventpush up                                    # stays in the foreground",
    "eventpush check                                 # in a second terminal",
    "eventpush simulate --rate 100 --duration 10",
    "eventpush tail overspeed --from-beginning --max 3",
)

_INTERRUPTED = 130  # 128 + SIGINT, the convention of shells


class _ErrorMessage(click.ClickException):
    """An error as one line on standard error, exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"eventpush: {self.message}", file=file, err=file is None)


class Commands(click.Group):
    """The group of all commands: imports them on first use and shows errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return all names, in the order of the help."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command of that name; None if there is none."""
        if cmd_name not in SUMMARIES:
            return None
        command: click.Command = importlib.import_module(f"eventpush.commands.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands by section, without importing them."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()), col_max=12)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples."""
        write_examples(formatter, EXAMPLES)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; show no traceback for operator errors or Ctrl-C."""
        try:
            return super().invoke(ctx)
        except OperatorError as problem:
            raise _ErrorMessage(str(problem)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get(f"{PREFIX}LOG_LEVEL") == "debug":
                raise
            first_line = (str(error).splitlines() or [""])[0]
            raise _ErrorMessage(
                f"{type(error).__name__}: {first_line} (unexpected; a bug: {PREFIX}LOG_LEVEL=debug shows the traceback)"
            ) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="eventpush", message="%(prog)s %(version)s")
def cli() -> None:
    """Receive telematics events: webhook to Kafka to ClickHouse, nothing lost, nothing duplicated.

    All settings are environment variables EVENTPUSH_…; docs/settings.md lists them. Exit status: 0 for success, 1 for
    an error (one line on standard error names it and the remedy), 2 for an invalid command line.
    """
