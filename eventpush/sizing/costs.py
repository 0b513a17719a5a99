"""What an event costs, from the figures of the committed benchmark (`docs/benchmarks.json`). Pure, but for reading it.

Under a backlog a process works on full batches, and the cost of an event is all there is. At a steady rate each
transaction and each insert costs as well:

    cores = a per event x events/s + b per transaction x transactions/s + c per insert x inserts/s

The coefficients are fitted by least squares, none below 0, from the runs of `make bench ARGS=paced` at its lowest and
its highest rate. Those in between are not used for the fit: the error is stated against them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: In a checkout and in a wheel.
_FILES = (Path(__file__).parents[2] / "docs" / "benchmarks.json", Path(__file__).parent / "benchmarks.json")

_PACED = re.compile(r"([\d,]+) events/s, (\d+) partitions, (\d+) types: (.+)")

#: A paced run's figure of the events per second that the worker took, and the share of the load that it must be.
_TAKEN, _KEPT_UP = "events through the worker", 0.95

#: What drives each process's cores at a steady rate.
DRIVERS: Mapping[str, tuple[str, ...]] = {
    "ingress": ("events",),
    "streams": ("events", "transactions"),
    "kafka": ("events", "transactions"),
    "sink": ("events", "inserts"),
    "clickhouse": ("events", "inserts"),
}

#: The figure of a backlog that says how many events a CPU-second takes, by section.
_BACKLOG: Mapping[str, tuple[str, str]] = {
    "ingress": ("ingress", "ingress, single events, 64 connections"),
    "streams": ("streams", "stream worker, everything on"),
    "sink": ("sink", "sink process"),
    "clickhouse": ("sink", "ClickHouse, embedded"),
}

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A paced run: its load, and what was measured of it."""

    rate: int  # events per second
    partitions: int
    types: int
    measured: Mapping[str, float]

    @property
    def is_steady(self) -> bool:
        """Whether the worker kept up with the load; a queue that grows says nothing about the cost of the load."""
        return self.measured.get(_TAKEN, self.rate) >= _KEPT_UP * self.rate

    def driver(self, name: str) -> float:
        """Return events, transactions or inserts per second."""
        return float(self.rate) if name == "events" else self.measured[name]


@dataclass(frozen=True)
class Cost:
    """CPU-seconds of one process: per event, per transaction, per insert."""

    events: float
    transactions: float = 0.0
    inserts: float = 0.0
    error: float | None = None  # greatest relative error against runs that were not fitted; None: no such runs
    source: str = ""

    def cores(self, rate: float, transactions: float, inserts: float) -> float:
        """Return the cores at a load, all per second."""
        return self.events * rate + self.transactions * transactions + self.inserts * inserts


@dataclass(frozen=True)
class Costs:
    """The costs of all processes, and what the benchmark does not say."""

    of: Mapping[str, Cost]
    transactions_per_worker: float | None  # per second, the most of a paced run with one worker
    inserts_per_sink: float | None
    row_bytes: float  # on ClickHouse's disk
    missing: Sequence[str]


def read(path: Path | None = None) -> dict[str, Any]:
    """Read the benchmark's figures: those of `path`, or the committed ones."""
    found = path or next(file for file in _FILES if file.exists())
    document: dict[str, Any] = json.loads(found.read_bytes())
    return document


def costs(document: Mapping[str, Any]) -> Costs:
    """Return the costs; a process that the benchmark does not cover is left out, and said to be missing."""
    runs = [run for run in paced_runs(document) if run.is_steady]
    of = _fitted(runs) if runs else _of_a_backlog(document)
    missing = [] if runs else [
        "paced runs (`make bench ARGS=paced`), so cores are lower bounds: of full batches, as under a backlog",
        "the brokers' cores, so their number follows from disk and network alone",
    ]  # fmt: skip
    row_bytes = _figure(document, "analysts", "size on disk")
    return Costs(
        of,
        max((run.measured["transactions"] for run in runs), default=None),
        max((run.measured["inserts"] for run in runs), default=None),
        row_bytes,
        missing,
    )


def paced_runs(document: Mapping[str, Any]) -> list[Run]:
    """Return the paced runs with all their figures, by load."""
    found: dict[tuple[int, int, int], dict[str, float]] = {}
    for figure in document.get("paced", {}).get("figures", ()):
        if match := _PACED.fullmatch(figure["what"]):
            load = (int(match[1].replace(",", "")), int(match[2]), int(match[3]))
            found.setdefault(load, {})[match[4].removesuffix(", cores")] = float(figure["value"])
    return [Run(*load, measured) for load, measured in sorted(found.items())]


def _fitted(runs: Sequence[Run]) -> dict[str, Cost]:
    ends = {min(run.rate for run in runs), max(run.rate for run in runs)}
    used = [run for run in runs if run.rate in ends]
    others = [run for run in runs if run.rate not in ends]
    return {process: _fit(process, used, others) for process in DRIVERS}


def _fit(process: str, used: Sequence[Run], others: Sequence[Run]) -> Cost:
    drivers = DRIVERS[process]
    loads = np.array([[run.driver(name) for name in drivers] for run in used])
    cores = np.array([run.measured[process] for run in used])
    coefficients = non_negative(loads, cores)
    cost = dict(zip(drivers, coefficients.tolist(), strict=True))
    errors = [abs(sum(cost[name] * run.driver(name) for name in drivers) / run.measured[process] - 1) for run in others]
    source = f"fitted from {len(used)} paced runs that kept up"
    return Cost(**cost, error=max(errors, default=None), source=source)


def non_negative(loads: Matrix, cores: Matrix) -> Matrix:
    """Return the least-squares coefficients that are not below 0: the best of all subsets of columns; they are few.

    Each run counts by its relative error, or the largest load would decide alone.
    """
    scaled = loads / cores[:, None]
    best, least = np.zeros(loads.shape[1]), np.inf
    for size in range(1, loads.shape[1] + 1):
        for columns in map(list, combinations(range(loads.shape[1]), size)):
            found = np.linalg.lstsq(scaled[:, columns], np.ones(len(cores)), rcond=None)[0]
            residual = float(((scaled[:, columns] @ found - 1) ** 2).sum())
            if (found >= 0).all() and residual < least:
                best, least = np.zeros(loads.shape[1]), residual
                best[columns] = found
    return best


def _of_a_backlog(document: Mapping[str, Any]) -> dict[str, Cost]:
    return {
        process: Cost(1 / _figure(document, section, what), source=f"{what}, backlog")
        for process, (section, what) in _BACKLOG.items()
    }


def _figure(document: Mapping[str, Any], section: str, what: str) -> float:
    return next(float(figure["value"]) for figure in document[section]["figures"] if figure["what"] == what)
