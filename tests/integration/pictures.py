"""The pictures of docs/analysts.md, of the simulated fleet; `python -m tests.integration.cookbook` writes them."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h3
import matplotlib as mpl
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from tests.integration.reporting import Reporting

_DOCS = Path(__file__).parents[2] / "docs"
_STYLE = {"svg.hashsalt": "eventpush", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_BLUE = "#2864a0"

_TYPES = """
SELECT event, toString(day) AS day, sum(events) AS n FROM telematics.events_daily
GROUP BY event, day ORDER BY event, day
"""
_CELLS = """
SELECT h3ToString(h3_r7) AS cell, count() AS n FROM telematics.events
WHERE h3ToParent(h3_r7, 4) = (
    SELECT h3ToParent(h3_r7, 4) AS region FROM telematics.events GROUP BY region ORDER BY count() DESC, region LIMIT 1)
GROUP BY cell ORDER BY cell
"""
_DELAYS = """
SELECT greatest(dateDiff('second', device_time, received_at), 1) AS delay_s, count() AS n
FROM telematics.events GROUP BY delay_s ORDER BY delay_s
"""


def types(reporting: Reporting) -> Figure:
    """Events by type and day, stacked; the most frequent type is at the bottom."""
    rows = reporting.ask(_TYPES)
    totals = Counter[str]()
    for row in rows:
        totals[row["event"]] += row["n"]
    days = sorted({row["day"] for row in rows})
    figure, axes = _figure()
    bottoms = [0] * len(days)
    for number, (event, _) in enumerate(totals.most_common()):
        of_day = {row["day"]: row["n"] for row in rows if row["event"] == event}
        heights = [of_day.get(day, 0) for day in days]
        colour = mpl.colormaps["tab20"](number % 20)
        axes.bar([day[5:] for day in days], heights, bottom=bottoms, label=event, color=colour)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.tick_params(axis="x", rotation=60)
    axes.set_ylabel("events")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def cells(reporting: Reporting) -> Figure:
    """A heat map of the H3 cells around the busiest place."""
    rows = reporting.ask(_CELLS)
    outlines = [[(longitude, latitude) for latitude, longitude in h3.cell_to_boundary(row["cell"])] for row in rows]
    figure, axes = _figure()
    counts = [row["n"] for row in rows]
    drawn = PolyCollection(outlines, array=counts, cmap="YlOrRd", edgecolor="#ffffff", linewidth=0.5)
    axes.add_collection(drawn)
    axes.autoscale_view()
    axes.set_aspect(1 / math.cos(math.radians(outlines[0][0][1])))
    axes.set_xlabel("degrees east")
    axes.set_ylabel("degrees north")
    figure.colorbar(drawn, label="events")
    return figure


def lateness(reporting: Reporting) -> Figure:
    """The share of events that had arrived after a time, on a logarithmic axis."""
    rows = reporting.ask(_DELAYS)
    total = sum(row["n"] for row in rows)
    shares: list[float] = []
    for row in rows:
        shares.append((shares[-1] if shares else 0) + row["n"] / total)
    figure, axes = _figure()
    axes.step([row["delay_s"] for row in rows], shares, where="post", color=_BLUE)
    axes.set_xscale("log")
    axes.set_xticks([1, 60, 3_600, 21_600, 86_400], ["1 s", "1 min", "1 h", "6 h", "1 d"])
    axes.minorticks_off()
    axes.set_xlabel("from the device's clock to the arrival")
    axes.set_ylabel("share that had arrived")
    axes.set_ylim(0, 1.02)
    axes.grid(color="#e0e0e0")
    return figure


#: Name → what draws it.
PICTURES: dict[str, Callable[[Reporting], Figure]] = {"types": types, "h3": cells, "lateness": lateness}


def file_of(name: str) -> Path:
    """Return where a picture is kept."""
    return _DOCS / f"analysts-{name}.svg"


def write(reporting: Reporting) -> None:
    """Draw all pictures into their files."""
    with mpl.rc_context(_STYLE):
        for name, draw in PICTURES.items():
            draw(reporting).savefig(file_of(name), format="svg", bbox_inches="tight", metadata={"Date": None})


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 3.2))
    return figure, figure.add_subplot()
