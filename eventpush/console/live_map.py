"""The page Map: the newest events as they come, clustered, with filters; one event or a list on a click."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements import leaflet
from nicegui.events import GenericEventArguments

from eventpush.console import wording
from eventpush.console.clusters import Cluster, View, clusters, of_cell
from eventpush.console.event_list import EventList, show_event, title
from eventpush.console.event_ring import Bounds, EventRing, Filter, MapEvent
from eventpush.console.layout import heading, tag, text
from eventpush.console.sources import Sources
from schemas.event_types import SEVERITIES

_LEAFLET = Path(str(leaflet.__file__)).parent / "dist"
_REFRESH_S = 1.0
_LIST_MAX = 12
_OPENED_MAX = 50
_CENTER, _ZOOM = (22.0, 79.0), 5
OUTLINES = "/outlines.json"


class EventMap(Element, component="event_map.js", esm={"nicegui-leaflet": str(_LEAFLET)}):
    """The map itself; `features` is what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.add_resource(_LEAFLET / "leaflet")
        self._props["features"] = []
        self._props["center"], self._props["zoom"] = _CENTER, _ZOOM
        self._props["outlines"] = OUTLINES
        self._props["bounds"] = None
        self.props('role=region aria-label="Map of events"')

    def show(self, features: list[dict[str, Any]]) -> None:
        """Replace what is shown, if it differs."""
        if features != self._props["features"]:
            self._props["features"] = features
            self.update()

    def fit(self, bounds: Bounds) -> None:
        """Move to these bounds, unless somebody has moved the map."""
        self._props["bounds"] = bounds
        self.update()


def build(sources: Sources) -> None:
    """Build the page; it refreshes itself every second."""
    view = _Map(sources)
    ui.timer(_REFRESH_S, view.refresh)


def feature(cluster: Cluster, ring: EventRing) -> dict[str, Any]:
    """Return a cluster as the map's script reads it."""
    named = [f"{wording.count(count)} {name}" for name, count in zip(SEVERITIES, cluster.counts, strict=True) if count]
    several = f"{wording.count(cluster.count)} events: {', '.join(reversed(named))}"
    return {
        "key": cluster.key,
        "lat": cluster.latitude,
        "lon": cluster.longitude,
        "counts": list(cluster.counts),
        "text": short(cluster.count),
        "severity": cluster.severity,
        "label": title(ring[cluster.place]) if cluster.count == 1 else several,
    }


def short(count: int) -> str:
    """Return a number in at most four characters: 950, 1.2k, 50k."""
    if count < 1_000:
        return str(count)
    return f"{count / 1_000:.1f}k" if count < 10_000 else f"{count // 1_000}k"


class _Map:
    def __init__(self, sources: Sources) -> None:
        self._feed, self._progress = sources.feed, sources.progress
        self._view: View | None = None
        self._shown: object = None
        self._is_fitted = False
        with tag("form").classes("filters").props('aria-label="Filters"').on("submit.prevent", lambda: None):
            self._types = _choice("Type")
            self._severities = _choice("Severity", SEVERITIES)
            self._fleets = _choice("Fleet")
            self._senders = _choice("Sender")
        self._status = text("p", "Reading the newest events …").props("role=status").classes("quiet")
        with tag("div").classes("map-and-list"):
            self._map = EventMap()
            self._map.on("view", self._on_view)
            self._map.on("open", self._on_open)
            with tag("section").classes("panel latest"):
                heading(2, "Latest in view")
                self._latest = EventList(lambda event: self._show_events([event]))
        self._dialog = ui.dialog()

    async def refresh(self) -> None:
        """Show what has come, if the map is on the screen already."""
        self._feed.watch()
        # The feed's consumer waits for a Kafka that has gone, and says nothing.
        problem = self._feed.problem or (await self._progress.get(wait_s=0)).problem
        ring, view = self._feed.ring, self._view
        for choice, names in ((self._types, ring.types), (self._fleets, ring.fleets), (self._senders, ring.senders)):
            if choice.options != (known := names.known()):
                choice.set_options(known)
        wanted = self._filter()
        if not self._is_fitted and len(ring):
            self._is_fitted = True
            self._map.fit(ring.bounds())
        state = (ring.version, view, wanted, problem)
        if view is None or state == self._shown:
            return
        self._shown = state
        places = ring.matching(wanted)
        found = clusters(ring.latitude, ring.longitude, ring.severity, places, view)
        self._map.show([feature(cluster, ring) for cluster in found])
        inside = sum(cluster.count for cluster in found)
        counted = f"{wording.count(inside)} of the newest {wording.count(len(ring))} events are in view."
        self._status.set_text(problem or counted)
        in_view = (
            event
            for at in ring.newest(places, ring.capacity)
            if view.south <= (event := ring[at]).latitude <= view.north and view.west <= event.longitude <= view.east
        )
        self._latest.show(list(islice(in_view, _LIST_MAX)))

    def _filter(self) -> Filter:
        chosen = (self._types, self._fleets, self._senders, self._severities)
        return Filter(*(tuple(choice.value or ()) for choice in chosen))

    async def _on_view(self, arguments: GenericEventArguments) -> None:
        seen = arguments.args
        self._view = View(
            float(seen["south"]), float(seen["west"]), float(seen["north"]), float(seen["east"]), int(seen["zoom"])
        )
        await self.refresh()

    def _on_open(self, arguments: GenericEventArguments) -> None:
        ring = self._feed.ring
        places = of_cell(ring.latitude, ring.longitude, ring.matching(self._filter()), str(arguments.args))
        self._show_events([ring[at] for at in ring.newest(places, _OPENED_MAX)])

    def _show_events(self, events: list[MapEvent]) -> None:
        self._dialog.clear()
        with self._dialog, tag("section").classes("panel dialog fields").props("aria-label=Event"):
            if len(events) == 1:
                show_event(events[0])
            else:
                heading(2, f"{len(events)} events at this place, the newest first" if events else "No event here now")
                EventList(lambda event: self._show_events([event])).show(events)
            ui.button("Close", on_click=self._dialog.close).props("flat no-caps autofocus")
        self._dialog.open()


def _choice(label: str, options: Iterable[str] = ()) -> ui.select:
    choice = ui.select(list(options), multiple=True, label=label, clearable=True)
    return choice.props("outlined dense options-dense use-chips").classes("filter")
