"""The plots of docs/benchmarks.md: `<peers' python> -m bench.plots RESULTS DIRECTORY`.

It runs in the peers' environment, which has matplotlib, reads the file of figures, and imports nothing of the pipeline.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

plt.switch_backend("svg")
plt.rcParams.update({"svg.hashsalt": "eventpush", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

_BLUE, _GREY = "#2864a0", "#a0a8b0"


def streams(section: dict[str, Any]) -> Figure:
    """Plot events per CPU-second: the worker and its peers."""
    bars = [f for f in section["figures"] if f["unit"] == "events per CPU-second"]
    return _bars([f["what"] for f in bars], [f["value"] for f in bars], "events per CPU-second")


def ingress(section: dict[str, Any]) -> Figure:
    """Plot percentiles of the acknowledgement latency, by server and number of connections."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for label, percentiles in section["series"].items():
        ours = label.startswith("ingress")
        axes.plot(["p50", "p90", "p99", "p99.9"], percentiles, marker="o", label=label, linestyle="-" if ours else ":")
    axes.set_yscale("log")
    axes.set_ylabel("acknowledgement, ms")
    axes.legend(fontsize=7, frameon=False)
    return figure


def end_to_end(section: dict[str, Any]) -> Figure:
    """Plot latency by rate."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for (where, points), colour in zip(section["series"].items(), (_BLUE, _GREY), strict=True):
        rates = [point[0] for point in points]
        axes.plot(rates, [point[1] for point in points], color=colour, marker="o", label=f"{where}, p50")
        axes.plot(rates, [point[2] for point in points], color=colour, marker="o", linestyle=":", label=f"{where}, p99")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("events/s")
    axes.set_ylabel("ms after the POST")
    axes.legend(fontsize=7, frameon=False)
    return figure


def growth(section: dict[str, Any]) -> Figure:
    """Plot throughput and memory by identities in the window."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8))
    points = section["series"]["identities"]
    millions = [point[0] / 1e6 for point in points]
    left.plot(millions, [point[1] for point in points], color=_BLUE, marker="o")
    left.set_ylim(bottom=0)
    left.set_ylabel("events per CPU-second")
    right.plot(millions, [point[2] for point in points], color=_BLUE, marker="o")
    right.set_ylim(bottom=0)
    right.set_ylabel("resident memory, MB")
    for axes in (left, right):
        axes.set_xlabel("identities in the window, millions")
    return figure


def _bars(labels: list[str], values: list[float], unit: str) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.4 * len(labels)))
    positions = range(len(labels))
    axes.barh(positions, values, color=[_BLUE, *[_GREY] * (len(labels) - 1)])
    axes.set_yticks(positions, labels)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    for position, value in zip(positions, values, strict=True):
        axes.annotate(f" {value:,.0f}", (value, position), va="center", fontsize=8)
    return figure


def main(results: Path, directory: Path) -> None:
    """Draw every plot that the results have a series for."""
    document = json.loads(results.read_text())
    for name, draw in (("streams", streams), ("ingress", ingress), ("end_to_end", end_to_end), ("growth", growth)):
        if document.get(name, {}).get("series"):
            figure = draw(document[name])
            figure.tight_layout()
            figure.savefig(directory / f"benchmarks-{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
