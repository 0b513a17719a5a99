"""What an event costs, from the figures of the committed benchmark (`docs/benchmarks.json`). Pure, but for reading it.

Under a backlog a process works on full batches, and the cost of an event is all there is. At a steady rate each
transaction, each batch in it and each insert costs as well:

    cores = a per event x events/s + b per transaction x transactions/s + c per insert x inserts/s + …

The coefficients are fitted by least squares, none below 0, from the runs of `make bench ARGS=paced` at its lowest and
its highest rate, and from the backlog. Those in between are not used: the error is stated against them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eventpush.sizing.demand import Demand, batches, writes
from schemas.event_types import TYPES

#: In a checkout and in a wheel.
_FILES = (Path(__file__).parents[2] / "docs" / "benchmarks.json", Path(__file__).parent / "benchmarks.json")

_PACED = re.compile(r"([\d,]+) events/s, (\d+) partitions, (\d+) types: (.+)")

#: A paced run's figure of the events per second that the worker took, and the share of the load that it must be.
_TAKEN, _KEPT_UP = "events through the worker", 0.95

#: What drives each process's cores at a steady rate: fields of `Demand`.
DRIVERS: Mapping[str, tuple[str, ...]] = {
    "ingress": ("events", "processes", "writes"),
    "streams": ("events", "transactions", "batches"),
    "kafka": ("events", "writes", "transactions", "batches"),
    "sink": ("events", "inserts"),
    "clickhouse": ("events", "inserts"),
}

#: Of the benchmark's backlog.
_BACKLOG_PARTITIONS, _INSERT_ROWS = 4, 20_000

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

    @property
    def demand(self) -> Demand:
        """What the one process of each kind did."""
        transactions = self.measured["transactions"]
        in_batches = batches(self.rate, transactions, self.partitions, self.types)
        return Demand(self.rate, 1, writes(self.rate), transactions, in_batches, self.measured["inserts"])


@dataclass(frozen=True)
class Cost:
    """CPU-seconds of a process by driver (see `DRIVERS`)."""

    per: Mapping[str, float]
    error: float | None = None  # greatest relative error against runs that were not fitted; None: no such runs
    source: str = ""

    def cores(self, demand: Demand) -> float:
        """Return the cores that this work takes."""
        return sum(cost * float(getattr(demand, driver)) for driver, cost in self.per.items())


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
    backlog = _backlog(document)
    of = _fitted(runs, backlog) if runs else _of_a_backlog(backlog)
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


#: A demand, and the cores that it took.
Measured = tuple[Demand, float]


def _fitted(runs: Sequence[Run], backlog: Mapping[str, Measured]) -> dict[str, Cost]:
    ends = {min(run.rate for run in runs), max(run.rate for run in runs)}
    found = {}
    for process in DRIVERS:
        used = [(run.demand, run.measured[process]) for run in runs if run.rate in ends]
        others = [(run.demand, run.measured[process]) for run in runs if run.rate not in ends]
        source = f"fitted from {len(used)} paced runs that kept up"
        if process in backlog:
            used.append(backlog[process])
            source += " and the backlog"
        found[process] = _fit(DRIVERS[process], used, others, source)
    return found


def _fit(drivers: Sequence[str], used: Sequence[Measured], others: Sequence[Measured], source: str) -> Cost:
    loads = np.array([[float(getattr(demand, driver)) for driver in drivers] for demand, _ in used])
    cores = np.array([cores for _, cores in used])
    cost = Cost(dict(zip(drivers, non_negative(loads, cores).tolist(), strict=True)), source=source)
    errors = [abs(cost.cores(demand) / cores - 1) for demand, cores in others]
    return replace(cost, error=max(errors, default=None))


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


def _of_a_backlog(backlog: Mapping[str, Measured]) -> dict[str, Cost]:
    return {
        process: Cost({"events": cores / demand.events}, source="of full batches, as under a backlog")
        for process, (demand, cores) in backlog.items()
    }


def _backlog(document: Mapping[str, Any]) -> dict[str, Measured]:
    """Return what the processes did, and took, when there was more than they could do."""
    ingress, streams, sink = "ingress, single events, 64 connections", "stream worker, everything on", "sink process"
    received = _figure(document, "ingress", f"{ingress}: wall rate")
    processed = _figure(document, "streams", f"{streams}: wall rate")
    stored = _figure(document, "sink", f"{sink}: wall rate")
    transactions = processed / _figure(document, "streams", "stream worker: events in a transaction")
    in_batches = batches(processed, transactions, _BACKLOG_PARTITIONS, len(TYPES))
    of_sink = Demand(stored, inserts=stored / _INSERT_ROWS)
    return {
        "ingress": (Demand(received, writes=writes(received)), received / _figure(document, "ingress", ingress)),
        "streams": (
            Demand(processed, transactions=transactions, batches=in_batches),
            processed / _figure(document, "streams", streams),
        ),
        "sink": (of_sink, stored / _figure(document, "sink", sink)),
        "clickhouse": (of_sink, stored / _figure(document, "sink", "ClickHouse, embedded")),
    }


def _figure(document: Mapping[str, Any], section: str, what: str) -> float:
    return next(float(figure["value"]) for figure in document[section]["figures"] if figure["what"] == what)
