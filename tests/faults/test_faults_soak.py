"""The soak's report: what is in it when something went wrong."""

import json
from collections import Counter
from pathlib import Path

from tests.faults.check_result import CheckResult
from tests.faults.reader import Stall
from tests.faults.soak import Deed, Run, as_json, figures, report


def run() -> Run:
    deeds = [Deed("kill -9 sink", 10.0, 10.1), Deed("SIGSTOP the broker", 20.0, 24.0), Deed("kill -9 ingress", 60, 60)]
    stalls = [Stall(21.0, 12.5), Stall(60.0, 2.0), Stall(100.0, 11.0)]
    return Run(7, deeds, [3.0, 8.25], Counter({"sink -9": 1}), 1.5, stalls, ["the end: not ready"])


def test_the_figures_count_faults_findings_stalls_and_what_did_not_come_back():
    """One figure for each thing that the run is for."""
    result = CheckResult(events=3, attempts=5, acknowledged=4)
    result.note("lost", "an event", "not in ClickHouse")
    found = figures(run(), result)
    assert (found["faults"], found["of these kill -9"], found["lost"], found["doubled"]) == (3, 2, 1, 0)
    assert (found["longest stall, seconds"], found["stalls above 10 s"], found["did not come back"]) == (12.5, 2, 1)


def test_the_report_names_the_faults_around_each_long_stall():
    """A stall above 10 s is listed with the faults of its time; one without any is listed as such."""
    text = report(run(), CheckResult())
    assert "- 12.5 s: SIGSTOP the broker\n" in text
    assert "- 11.0 s: no fault\n" in text
    assert "- 2.0 s" not in text
    assert "- the end: not ready\n" in text


def test_the_report_for_programs_holds_the_findings_and_the_directory(tmp_path: Path):
    """JSON with the figures, each finding and where the evidence is."""
    result = CheckResult()
    result.note("doubled", "an event", "2 times: events topic")
    summary = json.loads(as_json(run(), result, tmp_path))
    assert summary["result"]["found"] == {"doubled": {"an event": ["2 times: events topic"]}}
    assert (summary["figures"]["doubled"], summary["directory"]) == (1, str(tmp_path))
    assert summary["stalls"][0]["around"] == "SIGSTOP the broker"
