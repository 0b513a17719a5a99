"""`eventpush account` with a remainder: told to people, programs and Prometheus, and by the exit status."""

import json

import pytest
from click.testing import CliRunner, Result

from eventpush import accounting
from eventpush.account import Coverage, Line, Remainder
from eventpush.accounting import Account
from eventpush.cli import cli
from runtime.platform.settings import Settings
from tests.unit.cli_support import logging_as_it_was  # noqa: F401 - a fixture

MINUTE = "2026-11-24T00:10Z"


def run(monkeypatch: pytest.MonkeyPatch, *options: str, complete: bool = False) -> Result:
    gap = Remainder(2, 120, 133, 13, "in no batch")
    remainders = [] if complete else [gap]
    account = Account(
        [Coverage(2, 0, 200, 207, remainders)],
        {(MINUTE, "sos"): Line(12, 9, 2, 1, 9, 1), (MINUTE, "overspeed"): Line(5, 5, 0, 0, 3, 0)},
        2,
        remainders,
    )

    async def gather(_settings: Settings) -> Account:
        return account

    monkeypatch.setattr(accounting, "gather", gather)
    return CliRunner().invoke(cli, ["account", *options])


def test_a_remainder_is_named_and_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partition, raw offsets, how many and why; status 1. Without one everything is accounted for, status 0."""
    result = run(monkeypatch)
    assert result.exit_code == 1
    assert "remainder: partition 2, raw offsets 120 to 132: 13 in no batch" in result.output
    assert "in flight: 7 to be judged, 2 to be stored" in result.output
    result = run(monkeypatch, complete=True)
    assert (result.exit_code, "all 207 accepted events are accounted for" in result.output) == (0, True)


def test_each_minute_and_type_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """For people with `--by both`, for programs in `lines`, whatever the groups are."""
    assert f"{MINUTE} sos" in run(monkeypatch, "--by", "both").output
    told = json.loads(run(monkeypatch, "--json").output)
    assert told["remainders"] == [{"partition": 2, "first": 120, "next": 133, "events": 13, "why": "in no batch"}]
    (line,) = [line for line in told["lines"] if line["event"] == "sos"]
    assert (line["minute"], line["accepted"], line["stored"], line["duplicate"]) == (MINUTE, 12, 9, 2)


def test_prometheus_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepted, stored, duplicate and dead-lettered by type, what is in flight, and each remainder with its range."""
    text = run(monkeypatch, "--metrics").output
    assert 'eventpush_account_events{event="sos",outcome="stored"} 9.0' in text
    assert 'eventpush_account_in_flight_events{stage="streams"} 7.0' in text
    where = 'first="120",next="133",partition="2",why="in no batch"'
    assert f"eventpush_account_remainder_events{{{where}}} 13.0" in text
