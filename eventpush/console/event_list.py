"""A list of events as buttons, and one event in full."""

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from eventpush.console import find
from eventpush.console.event_ring import MapEvent
from eventpush.console.layout import definitions, heading, tag, text


class EventList:
    """Buttons that open events. They stay the same elements when the events change, so that the focus stays too."""

    def __init__(self, open_event: Callable[[MapEvent], Any]) -> None:
        self._open = open_event
        self._list = tag("ul").classes("plain")
        self._buttons: list[_Button] = []

    def show(self, events: Sequence[MapEvent]) -> None:
        """Show these events."""
        with self._list:
            while len(self._buttons) < len(events):
                self._buttons.append(_Button(self._open))
        for at, button in enumerate(self._buttons):
            button.show(events[at] if at < len(events) else None)


class _Button:
    def __init__(self, open_event: Callable[[MapEvent], Any]) -> None:
        self._event: MapEvent | None = None
        self._severity = ""
        with tag("li") as self._item, tag("button").props("type=button").classes("event") as self._button:
            self._type = text("span").classes("type")
            self._vehicle = text("span")
            self._time = text("span").classes("quiet")
        self._button.on("click", lambda: open_event(self._event) if self._event else None)

    def show(self, event: MapEvent | None) -> None:
        if event is self._event:
            return
        self._event = event
        self._item.set_visibility(event is not None)
        if event is not None:
            self._type.set_text(event.event)
            self._vehicle.set_text(event.vehicle or event.imei)
            self._time.set_text(shown_time(event))
            self._button.classes(remove=self._severity, add=event.severity)
            self._severity = event.severity


def shown_time(event: MapEvent) -> str:
    """Return the device time to the second."""
    return event.device_time[:19].replace("T", " ")


def title(event: MapEvent) -> str:
    """Return an event as one line."""
    return f"{event.event}, {event.vehicle or event.imei}, {shown_time(event)}"


def show_event(event: MapEvent) -> None:
    """Show one event in full, with a link to its trace."""
    heading(2, title(event))
    fields = [
        ("Severity", event.severity),
        ("Device time", event.device_time),
        ("IMEI", event.imei),
        ("Vehicle", event.vehicle),
        ("Fleet", event.fleet),
        ("Driver", event.driver),
        ("Location", event.location),
        ("Coordinates", f"{event.latitude:.5f}, {event.longitude:.5f}"),
        ("Sender", event.sender),
        ("Event id", event.event_id),
    ]
    definitions([(label, value) for label, value in fields if value])
    ui.link("Trace this event", find.address(event.event_id))
