"""`eventpush account` reports a discrepancy to people, programs and Prometheus, and by its exit status."""

import json

import pytest
from click.testing import CliRunner, Result

from eventpush.cli import cli
from eventpush.commands import account
from eventpush.reconciliation.arithmetic import Coverage, Discrepancy, OutcomeCounts
from eventpush.reconciliation.reconcile import Reconciliation
from runtime.platform.settings import Settings
from tests.unit.cli_support import logging_as_it_was  # noqa: F401 - a fixture

MINUTE = "2026-11-24T00:10Z"


def run(monkeypatch: pytest.MonkeyPatch, *options: str, complete: bool = False) -> Result:
    gap = Discrepancy(2, 120, 133, 13, "in no batch")
    discrepancies = [] if complete else [gap]
    reconciliation = Reconciliation(
        [Coverage(2, 0, 200, 207, discrepancies)],
        {(MINUTE, "sos"): OutcomeCounts(12, 9, 2, 1, 9, 1), (MINUTE, "overspeed"): OutcomeCounts(5, 5, 0, 0, 3, 0)},
        2,
        discrepancies,
    )

    async def reconcile(_settings: Settings) -> Reconciliation:
        return reconciliation

    monkeypatch.setattr(account, "reconcile", reconcile)
    return CliRunner().invoke(cli, ["account", *options])


def test_a_discrepancy_is_named_and_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partition, raw offsets, count and reason with status 1; without a discrepancy, status 0."""
    result = run(monkeypatch)
    assert result.exit_code == 1
    assert "discrepancy: partition 2, raw offsets 120 to 132: 13 in no batch" in result.output
    assert "in flight: 7 to be processed, 2 to be stored" in result.output
    result = run(monkeypatch, complete=True)
    assert (result.exit_code, "all 207 accepted events are accounted for" in result.output) == (0, True)


def test_each_minute_and_type_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """For people with `--by both`, for programs in `lines`, whatever the grouping."""
    assert f'{MINUTE} "sos"' in run(monkeypatch, "--by", "both").output
    report = json.loads(run(monkeypatch, "--json").output)
    assert report["discrepancies"] == [{"partition": 2, "first": 120, "next": 133, "events": 13, "why": "in no batch"}]
    (line,) = [line for line in report["lines"] if line["event"] == "sos"]
    assert (line["minute"], line["accepted"], line["stored"], line["duplicate"]) == (MINUTE, 12, 9, 2)


def test_prometheus_gets_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepted, stored, duplicate and dead-lettered by type, what is in flight, and each discrepancy with its range."""
    text = run(monkeypatch, "--metrics").output
    assert 'eventpush_account_events{event="sos",outcome="stored"} 9.0' in text
    assert 'eventpush_account_in_flight_events{stage="streams"} 7.0' in text
    where = 'first="120",next="133",partition="2",why="in no batch"'
    assert f"eventpush_account_remainder_events{{{where}}} 13.0" in text


@pytest.mark.parametrize("by", ["type", "both"])
def test_types_that_differ_only_in_blanks_look_different(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Types are quoted: a trailing blank, an invisible character and no type at all are visible."""
    types = ("overspeed", "overspeed ", "overspeed\u200b", "")
    outcomes = {(MINUTE, event): OutcomeCounts(1, 1, 0, 0, 1, 0) for event in types}

    async def reconcile(_settings: Settings) -> Reconciliation:
        return Reconciliation([Coverage(0, 0, 4, 4, [])], outcomes)

    monkeypatch.setattr(account, "reconcile", reconcile)
    lines = CliRunner().invoke(cli, ["account", "--by", by]).output.splitlines()
    for shown in ('"overspeed"', '"overspeed "', '"overspeed\\u200b"', '""'):
        assert sum(f"{shown}  " in line for line in lines) == 1, lines
