"""Render the figures as a table on the terminal and as docs/benchmarks.md."""

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.results import RESULTS_FILE, Figure, figures

REPORT_FILE = Path("docs/benchmarks.md")
PEERS_PYTHON = Path(".venv/peers/bin/python")

TITLES = {
    "streams": "Stream worker and its peers",
    "ingress": "Ingress and its peers",
    "sink": "Sink",
    "end_to_end": "End to end",
    "growth": "Growth",
    "recovery": "Recovery",
    "analysts": "Analysts",
    "paced": "Steady rates",
}


def table(document: dict[str, Any], parts: Iterable[str]) -> str:
    """Return the figures in columns, for a terminal."""
    return table_of([figure for part in parts for figure in figures(document, part)])


def table_of(measured: Iterable[Figure]) -> str:
    """Return these figures in columns."""
    rows = [_cells(figure) for figure in measured]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def write(document: dict[str, Any], parts: Sequence[str]) -> None:
    """Write the report and its plots (by matplotlib in the peers' environment, if it exists).

    Sections that are not among `parts` come last.
    """
    parts = [*parts, *sorted(document.keys() - set(parts))]
    lines = [_INTRODUCTION]
    lines += ["## Targets", "", *_markdown(f for part in parts for f in figures(document, part) if f.target), ""]
    for part in parts:
        if part in document:
            lines += _section(part, document[part], figures(document, part))
    notes = Path("docs/benchmarks-notes.md")
    if notes.exists():
        lines.append(notes.read_text())
    REPORT_FILE.write_text("\n".join(lines).rstrip() + "\n")
    if PEERS_PYTHON.exists():
        subprocess.run([PEERS_PYTHON, "-m", "bench.plots", RESULTS_FILE, REPORT_FILE.parent], check=True)


_INTRODUCTION = """\
# Benchmarks

Written by `make bench`; do not edit. One part can be measured again by itself: `make bench ARGS=streams`.

CPU-seconds are those of the process (user and system, with its children), from its first progress to its last, so its
start is not included. Peers alternate in the same run, on the same bytes, each on a fresh Kafka of the same kind on the
same machine. The broker, the sender of requests and other programs are not counted, but they share the cores, so wall
rates and latencies are what this machine yields for everything together. All settings are the defaults unless a row
says otherwise.
"""


def _section(part: str, measured: dict[str, Any], of_part: Sequence[Figure]) -> list[str]:
    when = f"Measured {measured['date']} on {measured['machine']}; load average before the end {measured['load'][0]}."
    quick = " **Quick run: rough figures.**" if measured["quick"] else ""
    plots = [f"![{part}](benchmarks-{part}.svg)", ""] if measured["series"] else []
    title = TITLES.get(part, part.capitalize())
    rows = _by_load(of_part) if part == "paced" else _markdown(of_part)
    return [f"## {title}", "", when + quick, "", measured["versions"] + ".", "", *rows, "", *plots]


def _markdown(rows: Iterable[Figure]) -> list[str]:
    lines = ["| what | figure | | target | note |", "| --- | ---: | --- | --- | --- |"]
    for figure in rows:
        what, value, unit, against_target = _cells(figure)
        lines.append(f"| {what} | {value} | {unit} | {against_target} | {figure.note} |")
    return lines


def _by_load(of_part: Sequence[Figure]) -> Iterator[str]:
    """Yield a table with a row for each load, whose name comes before the colon, and a column for each figure."""
    loads: dict[str, dict[str, Figure]] = {}
    for figure in of_part:
        load, _, what = figure.what.partition(": ")
        loads.setdefault(load, {})[what] = figure
    columns = {what: figure.unit for found in loads.values() for what, figure in found.items()}
    heads = [what if what.endswith(unit) else f"{what}, {unit}" for what, unit in columns.items()]
    yield f"| load | {' | '.join(heads)} | note |"
    yield f"| --- |{' ---: |' * len(heads)} --- |"
    for load, found in loads.items():
        values = [_number(found[what].value) if what in found else "" for what in columns]
        notes = dict.fromkeys(figure.note for figure in found.values() if figure.note)
        yield f"| {load} | {' | '.join([*values, '; '.join(notes)])} |"


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    against_target = ""
    if figure.target is not None:
        sign = "≥" if figure.sense == "at_least" else "≤"
        against_target = f"{sign} {_number(figure.target)}: {'met' if figure.met else 'NOT met'}"
    return figure.what, _number(figure.value), figure.unit, against_target


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
