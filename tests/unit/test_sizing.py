"""`eventpush size`: what a load needs, from the benchmark's figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from eventpush.cli import cli
from eventpush.sizing import costs as module
from eventpush.sizing.costs import DRIVERS, Run, costs, non_negative, read
from eventpush.sizing.demand import Demand, batches, writes
from eventpush.sizing.layout import UTILISATION, Load, layout

#: CPU-seconds of made-up processes, by driver.
_MADE_UP = {
    "events": 20e-6, "processes": 0.01, "writes": 0.3e-3, "transactions": 2e-3, "batches": 50e-6, "inserts": 5e-3,
}  # fmt: skip


def paced(*rates: int, wrong_at: int | None = None) -> dict[str, Any]:
    """The committed figures, with paced runs that follow the made-up costs exactly, but for one rate."""
    figures = []
    for rate in rates:
        for partitions in (4, 64):
            values = {"transactions": 20 - partitions / 8, "inserts": 1 + partitions / 32}
            demand = Run(rate, partitions, 8, values).demand
            for process in DRIVERS:
                values[f"{process}, cores"] = cores_of(process, demand) * (1.5 if rate == wrong_at else 1)
            what = f"{rate:,} events/s, {partitions} partitions, 8 types: "
            figures += [{"what": what + name, "value": value} for name, value in values.items()]
    return {name: section for name, section in read().items() if name != "paced"} | {"paced": {"figures": figures}}


@pytest.fixture
def _made_up_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog that follows the made-up costs, too."""
    demand = Demand(30_000, 1, writes(30_000), 8, 400, 7)
    made_up = {process: (demand, cores_of(process, demand)) for process in DRIVERS if process != "kafka"}
    monkeypatch.setattr(module, "_backlog", lambda _document: made_up)


def cores_of(process: str, demand: Demand) -> float:
    """The cores of a made-up process."""
    return sum(_MADE_UP[driver] * float(getattr(demand, driver)) for driver in DRIVERS[process])


@pytest.mark.usefixtures("_made_up_backlog")
def test_costs_are_found_again_in_paced_runs() -> None:
    """By driver; runs in between, which are not fitted, agree."""
    found = costs(paced(100, 1_000, 5_000))
    for process, drivers in DRIVERS.items():
        assert found.of[process].per == pytest.approx({driver: _MADE_UP[driver] for driver in drivers}, rel=1e-6)
    assert all(cost.error == pytest.approx(0, abs=1e-9) for cost in found.of.values())
    assert (found.transactions_per_worker, found.missing) == (19.5, [])


@pytest.mark.usefixtures("_made_up_backlog")
def test_the_error_is_that_of_runs_that_were_not_fitted() -> None:
    """A run in between that cost half as much again is a third off; without one there is no error to state."""
    assert costs(paced(100, 1_000, 5_000, wrong_at=1_000)).of["streams"].error == pytest.approx(1 / 3)
    assert costs(paced(100, 5_000)).of["streams"].error is None


def test_a_backlog_counts_as_a_run() -> None:
    """So the costs hold at the rate that a process can just bear, not only at the paced rates."""
    document = read()
    found = costs(document)
    for process, (demand, cores) in module._backlog(document).items():
        assert found.of[process].cores(demand) == pytest.approx(cores, rel=0.5), process


def test_batches_are_counted_as_events_fall() -> None:
    """Few events hit a partition and a topic each; many hit all of them."""
    assert batches(10, 10, 64, 8) == pytest.approx(10 * 5)
    assert batches(1e6, 10, 4, 8) == pytest.approx(10 * (4 * 4 + 4 * 8))
    assert batches(1e6, 20, 4, 8, workers=2) == pytest.approx(20 * (4 * 2 + 2 * 8))


@pytest.mark.usefixtures("_made_up_backlog")
def test_a_run_that_did_not_keep_up_is_left_out() -> None:
    """Its cores are those of fewer events than were sent."""
    document = paced(100, 1_000, 5_000)
    for figure in document["paced"]["figures"]:
        if figure["what"].startswith("5,000 events/s, 64 partitions"):
            figure["value"] /= 3
    slow = {"what": "5,000 events/s, 64 partitions, 8 types: events through the worker", "value": 1_700}
    document["paced"]["figures"].append(slow)
    found = costs(document).of["streams"]
    kept_up = [run for run in module.paced_runs(document) if run.is_steady]
    assert [run.measured["streams"] for run in kept_up] == pytest.approx([found.cores(run.demand) for run in kept_up])
    assert len(kept_up) == 5


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(1, 1e3), st.floats(0.01, 50)), min_size=2, max_size=10))
def test_no_cost_is_below_zero(runs: list[tuple[float, float, float]]) -> None:
    """Whatever was measured: more events never make a process cheaper."""
    measured = np.array(runs)
    assert (non_negative(measured[:, :2], measured[:, 2]) >= 0).all()


def test_without_paced_runs_the_answer_says_what_is_missing() -> None:
    """The costs are those of the backlog, and the brokers' cores are unknown."""
    found = costs({name: section for name, section in read().items() if name != "paced"})
    assert len(found.missing) == 2
    assert "kafka" not in found.of
    assert 0 < found.of["streams"].per["events"] < 1e-3
    assert layout(Load(1_000, 50_000, 86_400, 8), found).kafka_cores is None


@pytest.mark.parametrize("document", [read(), paced(100, 1_000, 5_000)], ids=["committed", "paced"])
def test_a_layout_bears_its_peak(document: dict[str, Any]) -> None:
    """No process above its share of a core or its memory, no more workers than partitions, each with as many."""
    measured = costs(document)
    before = 0
    for rate in (10, 1_000, 20_000, 200_000):
        load = Load(rate, min(rate * 100, 5_000_000), 86_400, 40)
        needed = layout(load, measured)
        for processes in (needed.ingress, needed.streams, needed.sink):
            assert processes.peak_cores <= processes.count * UTILISATION + 1e-9
            assert processes.cores <= processes.peak_cores
        assert needed.worker_gb <= load.worker_memory_gb
        assert needed.partitions >= needed.streams.count * 4
        assert needed.sink.count <= needed.partitions
        assert needed.brokers >= 3
        size = needed.ingress.count + needed.streams.count + needed.sink.count + needed.brokers
        assert size >= before
        before = size


def test_the_window_decides_the_workers_of_a_high_rate() -> None:
    """20,000 events/s for 24 hours are 2.16 billion identities: more memory than their cores ask for."""
    needed = layout(Load(20_000, 2_000_000, 86_400, 40), costs(read()))
    assert needed.streams_by == "memory"
    assert needed.window_gb == pytest.approx(20_000 * 86_400 * 1.25 * 91 / 1e9)
    assert needed.rocksdb_gb < needed.window_gb / 10


def size(*arguments: str) -> Any:
    """Run the command."""
    return CliRunner().invoke(cli, ["size", *arguments])


def test_the_command_prints_the_layout() -> None:
    """In words, and as JSON with load, layout, costs and what is missing."""
    given_load = ("--rate", "20000", "--devices", "2000000", "--window", "24h", "--types", "40")
    words = size(*given_load)
    assert words.exit_code == 0
    for name in (
        "ingress processes",
        "stream workers",
        "sinks",
        "partitions",
        "brokers",
        "Kafka's disks",
        "ClickHouse",
    ):
        assert name in words.output
    found = json.loads(size(*given_load, "--json").output)
    assert set(found) == {"load", "layout", "costs", "missing"}
    assert found["load"]["window_s"] == 86_400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rate", "0", "--devices", "1"), "--rate"),
        (("--rate", "1", "--devices", "1", "--window", "24"), "'24' is not a duration such as 24h"),
        (("--rate", "1", "--devices", "200000000"), "raise --worker-memory-gb"),
        (("--rate", "1", "--devices", "1", "--benchmarks", "pyproject.toml"), "is not the result of `make bench`"),
    ],
)
def test_wrong_input_gets_one_clear_message(arguments: tuple[str, ...], says: str) -> None:
    """It names the option and what is wrong."""
    result = size(*arguments)
    assert result.exit_code in (1, 2)
    assert says in result.output


def test_a_wheel_has_the_figures() -> None:
    """The build copies them to where an installed command looks."""
    pyproject = Path("pyproject.toml").read_text()
    assert '"docs/benchmarks.json" = "eventpush/sizing/benchmarks.json"' in pyproject
