"""Shared by the commands: help with examples, options, settings, and JSON output."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from runtime.platform import logging
from runtime.platform.settings import Settings, load


class Command(click.Command):
    """A command whose help ends with examples: shell lines, shown verbatim."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples, one per line, never wrapped."""
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    """Write shell lines verbatim under a heading."""
    formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in examples))


def command_with_examples(name: str, *examples: str) -> Callable[[Callable[..., None]], Command]:
    """Turn a function into a command with examples; its docstring is the help."""
    return click.command(name, cls=Command, examples=examples)


class Group(Command, click.Group):
    """A command with examples that also has subcommands."""


def group_with_examples(name: str, *examples: str) -> Callable[[Callable[..., None]], Group]:
    """Turn a function into a command with examples that subcommands can be added to; without one, it runs itself."""
    return click.group(name, cls=Group, examples=examples, invoke_without_command=True)


class Assignment(click.ParamType):
    """`Field=value`, split at the first equals sign."""

    name = "field=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return field and value."""
        name, equals, text = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not FIELD=VALUE", param, ctx)
        return name, text


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_of_a_command() -> Settings:
    """Load the settings and set up logging for a one-shot command: only errors appear beside its output."""
    settings = load()
    quiet = settings if settings.log_level == "debug" else settings.model_copy(update={"log_level": "error"})
    logging.setup(quiet, "eventpush")
    return settings


def settings_of_a_process(name: str) -> Settings:
    """Load the settings and set up logging for a long-running process."""
    settings = load()
    logging.setup(settings, name)
    return settings


def echo_json(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(msgspec.json.encode(value).decode())
