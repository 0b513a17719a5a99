"""Runbook drills: for each, the fault is made, and the commands of its page repair it."""

import re
import shlex
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.pipeline_support import Pipeline, own_pipeline, until
from tests.integration.test_pipeline import SAMPLE, settled
from tests.stack import ROOT

SERVICES = {"ingress", "streams", "sink"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline of its own: its processes are killed, and complain."""
    with own_pipeline(tmp_path_factory.mktemp("runbooks")) as running:
        yield running
        running.kill()


def run_page(pipeline: Pipeline, alert: str) -> list[str]:
    """Run each command of a page as it stands there; services are started, and stay. What the others print."""
    page = (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    printed = []
    for line in block.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "eventpush", line
        if words[0] in SERVICES:
            pipeline.start_process(words[0])
        else:
            printed.append(pipeline.run(*words).stdout)
    return printed


def event(number: int, **fields: Any) -> dict[str, Any]:
    """The sample of another device."""
    return SAMPLE | {"IMEI": f"{350612077000000 + number}"} | fields


@pytest.mark.parametrize(
    ("service", "alert"), [("streams", "EventpushStreamsDown"), ("sink", "EventpushSinkDown")], ids=["streams", "sink"]
)
def test_a_stage_that_is_down(pipeline: Pipeline, service: str, alert: str) -> None:
    """`eventpush check` names the process that does not answer; started as the page says, it stores what has waited."""
    process = pipeline.processes.pop(service)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    receipt = pipeline.post(event(1 if service == "streams" else 2))
    check, *_ = run_page(pipeline, alert)
    assert re.search(rf"^warning +{service} +nothing answers", check, re.MULTILINE), check
    pipeline.row(f"receipt_id = '{receipt}'")
    settled(pipeline)


def test_a_schema_that_is_behind_stops_the_sink(pipeline: Pipeline) -> None:
    """A column is missing; `eventpush check` says so, `eventpush migrate` adds it, and the sink goes on by itself."""
    step = "name = 'replays of dead letters'"
    for change in (
        "telematics.dead_letters_store DROP COLUMN attempt",
        f"telematics.schema_migrations DELETE WHERE {step}",
    ):
        pipeline.execute(f"ALTER TABLE {change} SETTINGS mutations_sync = 2")
    receipt = pipeline.post(event(3, Changes="many"))
    until(lambda: "insert failed; retrying" in sink_log(pipeline) or None, "a failed insert in the sink's log")
    check, _ = run_page(pipeline, "EventpushSinkStalled")
    assert re.search(r"^failed +schema .*run `eventpush migrate`", check, re.MULTILINE), check
    pipeline.row(f"receipt_id = '{receipt}'", "telematics.dead_letters")
    settled(pipeline)


def sink_log(pipeline: Pipeline) -> str:
    """What the sink has logged."""
    return (pipeline.home / "sink.log").read_text()
