"""Completeness and the account as rows, of a whole pipeline with two sinks."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from embedded import preflight
from eventpush.console.metric_samples import parse
from tests.integration.pipeline_support import Pipeline, own_pipeline, until
from tests.integration.test_pipeline import SAMPLE, at


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline whose completeness lags little: bodies may take a second."""
    with own_pipeline(tmp_path_factory.mktemp("pipeline"), EVENTPUSH_INGRESS_BODY_TIMEOUT_S="1") as running:
        yield running


def complete_through(pipeline: Pipeline) -> str:
    (row,) = pipeline.select("SELECT min(complete_through) AS at FROM telematics.completeness")
    return str(row["at"])


def shown(port: int) -> float | None:
    """The least value of the metric, in seconds since the epoch; None while it is not shown."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            samples = parse(answer.read().decode(), 0.0).samples
    except OSError:
        return None
    return min(samples.get("eventpush_complete_through_timestamp_seconds", {}).values(), default=None)


def complete_after(pipeline: Pipeline, moment: str) -> str:
    """Wait until all that was accepted before the moment is said to be here."""

    def later() -> str | None:
        found = complete_through(pipeline)
        return found if found > moment else None

    return until(later, f"complete through {moment}")


def test_an_accepted_event_is_complete_soon_and_idle_partitions_advance(pipeline: Pipeline) -> None:
    """Once completeness has passed its arrival the event is there; with nothing going on, the moment still advances."""
    receipt_id = pipeline.post(SAMPLE)
    row = pipeline.row(f"receipt_id = '{receipt_id}'")
    through = complete_after(pipeline, row["received_at"])
    assert len(pipeline.select("SELECT partition FROM telematics.completeness")) == 4
    (now,) = pipeline.select("SELECT toString(now64(6)) AS now")
    assert through < now["now"]
    complete_after(pipeline, through)


def test_another_sink_keeps_the_books(pipeline: Pipeline) -> None:
    """A second sink takes over when the first is killed, and what was said does not go back, nor does the metric."""
    ports = preflight.free_ports(1)
    (stored,) = pipeline.select(
        "SELECT toUnixTimestamp64Micro(min(complete_through)) AS us FROM telematics.completeness"
    )
    pipeline.environ["EVENTPUSH_SINK_METRICS_PORT"] = str(ports[0])
    killed = pipeline.processes.pop("sink")
    pipeline.start_process("sink")
    killed.kill()
    killed.wait()
    assert until(lambda: shown(ports[0]), "the second sink shows the metric") >= stored["us"] / 1e6
    receipt_id = pipeline.post(at(7))
    before = complete_through(pipeline)
    row = pipeline.row(f"receipt_id = '{receipt_id}'")
    assert complete_after(pipeline, row["received_at"]) > before


def test_account_minutes_are_the_account(pipeline: Pipeline) -> None:
    """Unique, repeated and broken events: every line of `eventpush account` is a row, and nothing is missing."""
    for event in (at(1), at(1), at(2, Event="sos"), at(3, IMEI="12"), at(4, Event="")):
        pipeline.post(event)

    def agree() -> list[dict[str, Any]] | None:
        found = json.loads(pipeline.run("account", "--json").stdout)
        rows = pipeline.select(
            "SELECT formatDateTime(minute, '%Y-%m-%dT%H:%iZ') AS minute, * EXCEPT minute"
            " FROM telematics.account_minutes(begin = '2020-01-01', end = now() + INTERVAL 1 HOUR)"
            " ORDER BY minute, event"
        )
        lines = [line for line in found["lines"] if line["accepted"]]
        complete = all(row.pop("not_stored") == 0 for row in rows)
        return rows if complete and not any(found["in_flight"].values()) and rows == lines else None

    rows = until(agree, "the view is the account")
    assert sum(row["accepted"] for row in rows) >= 7
    assert {row["event"] for row in rows} >= {"overspeed", "sos", ""}
    assert sum(row["duplicate"] for row in rows) == 1
