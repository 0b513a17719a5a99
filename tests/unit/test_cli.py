"""The command line: help with examples, errors in one line."""

import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from eventpush import cli as frame
from eventpush.cli import EXAMPLES, SUMMARIES, cli
from eventpush.options import Command
from runtime.platform.errors import OperatorError
from tests.unit.cli_support import logging_as_it_was  # noqa: F401 - a fixture


def run(*arguments: str, **kwargs) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="eventpush", **kwargs)


def leaves() -> dict[str, click.Command]:
    """Every command that can be run by itself, by the words that invoke it."""
    found: dict[str, click.Command] = {}
    for name in SUMMARIES:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {sub}": c for sub, c in command.commands.items()}
        if isinstance(command, Command):
            found[name] = command
    return found


LEAVES = leaves()


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """The outcome of a command that raises `error`."""

    @click.command("topics")
    def command() -> None:
        raise error

    monkeypatch.setattr(frame.Commands, "get_command", lambda *_: command)
    return run(*(arguments or ("topics",)))


def test_the_help_names_every_command() -> None:
    """`eventpush --help` shows each command with its line, without importing any of them."""
    shown = run("--help")
    assert shown.exit_code == 0
    for name in SUMMARIES:
        assert f"\n  {name} " in shown.output


@pytest.mark.parametrize("name", LEAVES)
def test_each_command_teaches(name: str) -> None:
    """Each command's help has a text, a line for every option, and examples."""
    command = LEAVES[name]
    assert isinstance(command, Command)
    assert command.help
    assert command.examples
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    assert "Examples:\n" in run(*name.split(), "--help").output


@pytest.mark.parametrize("line", [*EXAMPLES, *(line for c in LEAVES.values() for line in c.examples)])  # type: ignore[attr-defined]
def test_each_example_is_a_line_that_the_command_understands(line: str, tmp_path: Path, monkeypatch) -> None:
    """Every `eventpush …` in an example parses: its command, options and values exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.csv").touch()
    words = shlex.split(line, comments=True)
    for at, word in enumerate(words):
        if word != "eventpush":
            continue
        arguments = words[at + 1 :]
        for end in ("&&", "|", ";", "eventpush"):
            arguments = arguments[: arguments.index(end)] if end in arguments else arguments
        parts = 2 if " ".join(arguments[:2]) in LEAVES else 1
        LEAVES[" ".join(arguments[:parts])].make_context("x", arguments[parts:])


def test_a_problem_is_one_line_and_status_1(monkeypatch) -> None:
    """An operator error is one line on standard error, without a traceback."""
    result = fails_with(OperatorError("the disk is full", "make room"), monkeypatch)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "eventpush: the disk is full: make room\n"


def test_ctrl_c_is_quiet(monkeypatch) -> None:
    """Ctrl-C prints nothing and gives the status that shells expect."""
    result = fails_with(KeyboardInterrupt(), monkeypatch)
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_a_bug_is_one_line_and_a_traceback_only_when_asked_for(monkeypatch) -> None:
    """An unexpected error is reported as a bug; with EVENTPUSH_LOG_LEVEL=debug it is raised."""
    monkeypatch.delenv("EVENTPUSH_LOG_LEVEL", raising=False)
    result = fails_with(ValueError("first\nsecond"), monkeypatch)
    assert result.exit_code == 1
    assert result.stderr.startswith("eventpush: ValueError: first (unexpected")
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv("EVENTPUSH_LOG_LEVEL", "debug")
    assert isinstance(fails_with(ValueError("first"), monkeypatch).exception, ValueError)


def test_a_wrong_command_line_is_status_2() -> None:
    """An unknown command or option is click's usage error."""
    assert run("nonsense").exit_code == 2
    assert run("topics", "--nonsense").exit_code == 2
    assert run("tail", "sos", "--dead-letters").exit_code == 2


@pytest.mark.parametrize("name", ["topics", "check", "account", "migrate", "simulate"])
def test_a_wrong_setting_is_named(name: str) -> None:
    """An invalid variable is named with its value before anything is done."""
    result = run(name, env={"EVENTPUSH_WINDOW_S": "soon"})
    assert result.exit_code == 1
    assert "EVENTPUSH_WINDOW_S='soon'" in result.stderr
    assert result.stderr.count("\n") == 1


PROCESSES = {"up", "ingress", "streams", "sink", "console", "sse"}


@pytest.mark.parametrize("name", sorted(LEAVES.keys() - PROCESSES - {"reset"}))
def test_each_command_with_results_prints_them_as_json(name: str) -> None:
    """Every command has --json but those that run a process and `reset`, which asks a person."""
    assert any("--json" in parameter.opts for parameter in LEAVES[name].params)


@pytest.mark.parametrize("name", ["topics", "tail", "account", "migrate"])
def test_an_unavailable_service_is_named(name: str) -> None:
    """Kafka or ClickHouse unavailable: one line with the variable that holds its address."""
    nowhere = {"EVENTPUSH_KAFKA_BOOTSTRAP": "127.0.0.1:1", "EVENTPUSH_CLICKHOUSE_URL": "http://127.0.0.1:1"}
    result = run(name, env=nowhere)
    assert result.exit_code == 1
    assert "EVENTPUSH_KAFKA_BOOTSTRAP=127.0.0.1:1" in result.stderr or "CLICKHOUSE_URL=" in result.stderr
    assert result.stderr.count("\n") == 1


def test_simulate_without_an_ingress_says_so() -> None:
    """Nothing listens at the URL: one line, before anything is sent."""
    result = run("simulate", "--url", "http://127.0.0.1:1/api/events")
    assert result.exit_code == 1
    assert "nothing answers at --url http://127.0.0.1:1/api/events" in result.stderr


def test_reset_asks_first(tmp_path: Path) -> None:
    """Nothing is removed without a yes; a directory not made by `up` is never removed."""
    (tmp_path / "mine").touch()
    env = {"EVENTPUSH_DATA_DIR": str(tmp_path)}
    assert run("reset", env=env, input="n\n").exit_code == 1
    assert run("reset", "--yes", env=env).exit_code == 1
    assert (tmp_path / "mine").exists()
    nothing = run("reset", "--yes", env={"EVENTPUSH_DATA_DIR": str(tmp_path / "none")})
    assert (nothing.exit_code, "nothing to remove" in nothing.output) == (0, True)


def test_a_token_is_printed_with_its_line_for_the_tokens_file() -> None:
    """The token is for the sender; the line holds only its hash."""
    result = run("token", "new", "acme")
    token = result.output.splitlines()[0].rpartition(" ")[2]
    assert token.startswith("ep_")
    assert token not in result.output.splitlines()[1]
    assert " acme sha256:" in result.output.splitlines()[1]


def test_the_acls_of_a_team() -> None:
    """They name the type's topic, the user and the prefix of its groups; the type may be spelled as it is sent."""
    printed = CliRunner().invoke(cli, ["contract", "acls", "Fuel Drain", "--user", "fuel", "--group", "fuel-team"])
    topic, group = printed.stdout.splitlines()
    assert "--allow-principal User:fuel --operation Read --operation Describe" in topic
    assert topic.endswith("--topic telematics.event.fuel_drain.v1")
    assert group.endswith("--operation Read --resource-pattern-type prefixed --group fuel-team")
