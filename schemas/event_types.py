"""What is known of the event types: category and severity. Other types pass as `other`, `info`."""

from typing import NamedTuple


class Kind(NamedTuple):
    """How an event type is sorted for dashboards and alerts."""

    category: str
    severity: str  # info, warning, critical


#: The types of the sender's contract ("Supported Event Types"); the sorting is ours.
KINDS: dict[str, Kind] = {
    "overspeed": Kind("driving", "warning"),
    "fuel_fill": Kind("fuel", "info"),
    "fuel_drain": Kind("fuel", "critical"),
    "geofence_enter": Kind("geofence", "info"),
    "geofence_exit": Kind("geofence", "info"),
    "tampering": Kind("security", "critical"),
    "power_cut": Kind("security", "critical"),
    "sos": Kind("emergency", "critical"),
}

UNKNOWN = Kind("other", "info")


def kind_of(event: str) -> Kind:
    """Category and severity of an event type, whatever its case."""
    return KINDS.get(event) or KINDS.get(event.lower(), UNKNOWN)
