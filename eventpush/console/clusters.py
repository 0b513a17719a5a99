"""Group the events in view into cells of the screen, so that a map of any number of events stays small. Pure.

A cell is a square of `CELL_PX` pixels of the web Mercator projection at a zoom level, in which the world is
256 · 2^zoom pixels wide (EPSG:3857, as Leaflet uses it). Its key is `zoom/column/row`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.event_types import SEVERITIES

CELL_PX = 56
_TILE_PX = 256
_LATITUDE_MAX = 85.0511287798  # where the projection's square ends


@dataclass(frozen=True)
class View:
    """The part of the map on the screen, in degrees."""

    south: float
    west: float
    north: float
    east: float
    zoom: int


@dataclass(frozen=True)
class Cluster:
    """The events of one cell: their centre, their numbers by severity, and the place of one of them."""

    key: str
    latitude: float
    longitude: float
    counts: tuple[int, ...]  # in the order of `SEVERITIES`
    place: int

    @property
    def count(self) -> int:
        """The number of events."""
        return sum(self.counts)

    @property
    def severity(self) -> str:
        """The highest severity."""
        return max((name for name, count in zip(SEVERITIES, self.counts, strict=True) if count), key=SEVERITIES.index)


def clusters(
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    severity: NDArray[np.uint8],
    places: NDArray[np.intp],
    view: View,
) -> list[Cluster]:
    """Return the clusters of the events at these places that lie in view, the fullest last."""
    lat, lon = latitude[places], longitude[places]
    seen = (lat >= view.south) & (lat <= view.north) & (lon >= view.west) & (lon <= view.east)
    places, lat, lon = places[seen], lat[seen], lon[seen]
    if not len(places):
        return []
    columns, rows = _cells(lat, lon, view.zoom)
    wide = np.int64(1) << 32
    cells, first, inverse, counts = np.unique(
        columns * wide + rows, return_index=True, return_inverse=True, return_counts=True
    )
    by_severity = [np.bincount(inverse, severity[places] == at, len(cells)) for at in range(len(SEVERITIES))]
    centre_lat = np.bincount(inverse, lat) / counts
    centre_lon = np.bincount(inverse, lon) / counts
    return [
        Cluster(
            f"{view.zoom}/{cells[at] // wide}/{cells[at] % wide}",
            round(float(centre_lat[at]), 6),
            round(float(centre_lon[at]), 6),
            tuple(int(counted[at]) for counted in by_severity),
            int(places[first[at]]),
        )
        for at in np.argsort(counts, kind="stable")
    ]


def of_cell(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], places: NDArray[np.intp], key: str
) -> NDArray[np.intp]:
    """Return the places of the events in a cell; raise ValueError for a key that is none."""
    zoom, column, row = (int(part) for part in key.split("/"))
    columns, rows = _cells(latitude[places], longitude[places], zoom)
    inside: NDArray[np.intp] = places[(columns == column) & (rows == row)]
    return inside


def _cells(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], zoom: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    world_px = _TILE_PX * 2.0 ** min(max(zoom, 0), 24)
    sine = np.sin(np.radians(np.clip(latitude, -_LATITUDE_MAX, _LATITUDE_MAX)))
    x = (longitude / 360 + 0.5) * world_px
    y = (0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)) * world_px
    return (x // CELL_PX).astype(np.int64), (y // CELL_PX).astype(np.int64)
