"""The console's map: the ring of events, filters and clusters."""

import time

import numpy as np
import pytest

from eventpush.console.clusters import CELL_PX, View, clusters, of_cell
from eventpush.console.event_list import title
from eventpush.console.event_ring import EventRing, Filter, MapEvent
from eventpush.console.feed import event_of
from eventpush.console.live_map import feature, short
from schemas.device import Device
from tests.unit.published_records import read
from tests.unit.test_batch_processor import SAMPLE, process, record

WORLD = View(-85, -180, 85, 180, 5)


def event(at: int, **fields: object) -> MapEvent:
    values = {
        "event_id": f"id-{at}", "event": "sos", "imei": "350612075195931", "device_time": "2026-11-26T02:14:00.000000Z",
        "latitude": 22.0, "longitude": 75.0, "severity": "info",
    }  # fmt: skip
    return MapEvent(**(values | fields))  # type: ignore[arg-type]


def ring_of(*events: MapEvent, capacity: int = 100) -> EventRing:
    ring = EventRing(capacity)
    ring.add(events)
    return ring


def test_the_ring_keeps_the_newest() -> None:
    """It never holds more than its capacity, and lists the newest first."""
    ring = ring_of(*(event(at) for at in range(25)), capacity=10)
    assert len(ring) == 10
    newest = [ring[at].event_id for at in ring.newest(ring.matching(Filter()), 3)]
    assert newest == ["id-24", "id-23", "id-22"]
    ring.clear()
    assert (len(ring), list(ring.newest(ring.matching(Filter()), 3))) == (0, [])


def test_filters() -> None:
    """Each filter narrows; values of one filter are alternatives; an unknown one matches nothing."""
    ring = ring_of(
        event(0, fleet="a", sender="x", severity="critical"),
        event(1, fleet="b", event="overspeed"),
        event(2, fleet="a", event="overspeed", severity="warning"),
    )

    def ids(wanted: Filter) -> list[int]:
        return [int(at) for at in ring.matching(wanted)]

    assert ids(Filter()) == [0, 1, 2]
    assert ids(Filter(types=["overspeed"])) == [1, 2]
    assert ids(Filter(types=["overspeed"], fleets=["a"])) == [2]
    assert ids(Filter(severities=["critical", "warning"])) == [0, 2]
    assert ids(Filter(senders=["x"])) == [0]
    assert ids(Filter(senders=["nobody"])) == []
    assert ring.fleets.known() == ["a", "b"]


def test_the_map_begins_where_the_events_are() -> None:
    """The bounds hold every event of the ring."""
    ring = ring_of(event(0, latitude=-10.0), event(1, longitude=-70.0))
    assert ring.bounds() == ((-10.0, -70.0), (22.0, 75.0))


def test_names_are_bounded() -> None:
    """A hostile sender of ever new types costs no memory: further ones share a code."""
    ring = ring_of(*(event(at, event=f"type-{at}") for at in range(5_000)), capacity=10_000)
    assert len(ring.types.known()) < 2_000
    assert ring.types.code("type-4999") == 0


def test_near_events_are_one_cluster() -> None:
    """It counts them by severity and shows their centre; a far one stands alone."""
    ring = ring_of(
        event(0), event(1, latitude=22.001, severity="critical"), event(2, latitude=-33.9, longitude=151.2)
    )  # fmt: skip
    alone, together = clusters(ring.latitude, ring.longitude, ring.severity, ring.matching(Filter()), WORLD)
    assert (alone.count, alone.place, alone.latitude) == (1, 2, -33.9)
    assert (together.counts, together.severity, together.latitude) == ((1, 0, 1), "critical", 22.0005)
    places = of_cell(ring.latitude, ring.longitude, ring.matching(Filter()), together.key)
    assert [int(at) for at in places] == [0, 1]


def test_zooming_in_separates() -> None:
    """At a higher zoom the same two events are two clusters."""
    ring = ring_of(event(0), event(1, latitude=22.01))
    places = ring.matching(Filter())
    close = View(-85, -180, 85, 180, 16)
    assert len(clusters(ring.latitude, ring.longitude, ring.severity, places, WORLD)) == 1
    assert len(clusters(ring.latitude, ring.longitude, ring.severity, places, close)) == 2


def test_only_what_is_in_view() -> None:
    """Events outside of the view are left out."""
    ring = ring_of(event(0), event(1, longitude=-70.0))
    view = View(0, 0, 40, 90, 4)
    found = clusters(ring.latitude, ring.longitude, ring.severity, ring.matching(Filter()), view)
    assert [cluster.place for cluster in found] == [0]


def test_the_map_is_small_however_many_events_there_are() -> None:
    """50,000 events become at most one feature for each cell of the screen, in a fraction of a second."""
    random = np.random.default_rng(1)
    ring = EventRing(50_000)
    ring.add([
        event(at, latitude=float(lat), longitude=float(lon))
        for at, (lat, lon) in enumerate(zip(random.uniform(8, 35, 50_000), random.uniform(68, 97, 50_000), strict=True))
    ])  # fmt: skip
    view = View(8, 68, 35, 97, 5)
    began = time.monotonic()
    found = clusters(ring.latitude, ring.longitude, ring.severity, ring.matching(Filter()), view)
    assert time.monotonic() - began < 5
    assert sum(cluster.count for cluster in found) == 50_000
    width_px = 256 * 2**5 * 29 / 360
    assert len(found) <= (width_px / CELL_PX + 2) ** 2


@pytest.mark.parametrize("key", ["", "1/2", "a/b/c", "1/2/3/4"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """The browser sends it, so it may be anything."""
    with pytest.raises(ValueError, match=r".*"):
        of_cell(np.zeros(1), np.zeros(1), np.zeros(1, np.intp), key)


def test_poles_and_the_date_line_have_cells() -> None:
    """No coordinate of an event is an error."""
    ring = ring_of(event(0, latitude=90.0, longitude=180.0), event(1, latitude=-90.0, longitude=-180.0))
    assert (
        len(
            clusters(ring.latitude, ring.longitude, ring.severity, ring.matching(Filter()), View(-90, -180, 90, 180, 3))
        )
        == 2
    )


def test_what_the_browser_gets() -> None:
    """A feature has a label for screen readers; one event is named, several are counted."""
    ring = ring_of(event(0, vehicle="MP09"), event(1, longitude=10.0), event(2, longitude=10.0, severity="warning"))
    one, two = (
        feature(cluster, ring)
        for cluster in clusters(ring.latitude, ring.longitude, ring.severity, ring.matching(Filter()), WORLD)
    )
    assert one["label"] == title(ring[0]) == "sos, MP09, 2026-11-26 02:14:00"
    assert (two["label"], two["text"], two["severity"]) == ("2 events: 1 warning, 1 info", "2", "warning")
    assert [short(n) for n in (999, 1_000, 9_940, 50_000)] == ["999", "1.0k", "9.9k", "50k"]


def test_what_the_streams_publish_is_what_the_map_reads() -> None:
    """The map decodes a published event with all that it shows; a dead letter or other bytes are no event."""
    result = process(record(0, SAMPLE, sender="fleet-b"), devices={SAMPLE["IMEI"]: Device("MP09", "north", "A. Singh")})
    (published,) = read(result.events)
    found = event_of(published.value or b"")
    assert found is not None
    assert (found.event, found.imei, found.severity) == ("overspeed", SAMPLE["IMEI"], "warning")
    assert (found.latitude, found.longitude, found.location) == (22.927968, 75.533275, SAMPLE["Location"])
    assert (found.vehicle, found.fleet, found.driver, found.sender) == ("MP09", "north", "A. Singh", "fleet-b")
    assert [event_of(value) for value in (b"{}", b"\xff", b"")] == [None, None, None]
