"""What several commands share: help that teaches, options, settings, and how results are printed for programs."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from runtime import logging
from runtime.settings import Settings, load


class Command(click.Command):
    """A command whose help ends with examples: lines of shell, shown as they are."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples, each on its line, never wrapped."""
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    """Lines of shell under a heading, as they are."""
    formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in examples))


def command_with_examples(name: str, *examples: str) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command with examples; its docstring is the help."""
    return click.command(name, cls=Command, examples=examples)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def settings_of_a_command() -> Settings:
    """Return the settings, with logging set up for a command that a person runs: only errors beside its output."""
    settings = load()
    quiet = settings if settings.log_level == "debug" else settings.model_copy(update={"log_level": "error"})
    logging.setup(quiet, "eventpush")
    return settings


def settings_of_a_process(name: str) -> Settings:
    """Return the settings, with logging set up for a long-running process."""
    settings = load()
    logging.setup(settings, name)
    return settings


def echo_json(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(msgspec.json.encode(value).decode())
