"""The event types: which are known, how a type's name is normalised, and what is shown and simulated for each.

To add a type, add an entry to `TYPES`: its topic, its page, its example and its share of a simulated fleet follow.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class EventType:
    """How an event type is sorted for dashboards and alerts, and what its `Changes` stands for."""

    category: str  # driving, fuel, geofence, security, emergency, other
    severity: str  # info, warning, critical
    description: str
    changes: str  # what `Changes` stands for
    changes_range: tuple[int, int] = (0, 1)  # what the simulator draws from
    simulated_share: int = 0  # how often a simulated fleet reports it, relative to the others
    has_geofence: bool = False


#: The types of the sender's contract ("Supported Event Types", "Payload Field Definitions"); the sorting is ours.
TYPES: Mapping[str, EventType] = {
    "overspeed": EventType("driving", "warning", "Speed threshold exceeded", "km/h above the limit", (1, 60), 45),
    "fuel_fill": EventType("fuel", "info", "Fuel filling detected", "litres filled", (5, 300), 9),
    "fuel_drain": EventType("fuel", "critical", "Fuel theft detected", "litres drained", (5, 80), 5),
    "geofence_enter": EventType("geofence", "info", "Entered a geofence", "", (0, 1), 15, has_geofence=True),
    "geofence_exit": EventType("geofence", "info", "Left a geofence", "", (0, 1), 15, has_geofence=True),
    "geofence": EventType("geofence", "info", "Entered or left a geofence: the sender does not say which", ""),
    "tampering": EventType("security", "critical", "Device tampering", "", (0, 1), 4),
    "power_cut": EventType("security", "critical", "External power disconnected", "", (0, 1), 5),
    "sos": EventType("emergency", "critical", "Emergency alert", "", (1, 1), 2),
}

UNKNOWN = EventType("other", "info", "A type that the contract does not name", "")

#: The contract's other names for its own types ("Overview": "Geofence Entry / Exit").
_ALIASES = {"geofence_entry": "geofence_enter"}

CATEGORIES = tuple(dict.fromkeys(kind.category for kind in (*TYPES.values(), UNKNOWN)))
SEVERITIES = ("info", "warning", "critical")


def type_of(event: str) -> EventType:
    """Return what is known of a canonical event type."""
    return TYPES.get(event, UNKNOWN)


_JOINERS = "\u200c\u200d"  # format characters that some scripts need inside words
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that show nothing
_BLANKS_AND_HYPHENS = re.compile(r"[\s\-\u2010-\u2015\u2212]+")


@lru_cache(maxsize=4_096)
def canonical(event: str) -> str:
    """Normalise the name of an event type; empty if nothing of it is visible.

    Unicode NFKC (UAX 15), lower case, without invisible characters, blanks and hyphens as `_`, and the contract's other
    names mapped. The result decides identity, topic, category and the column `event`; normalising it again changes
    nothing.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", event).lower())
    text = "".join(character for character in text if character in _JOINERS or unicodedata.category(character) != "Cf")
    begin, end = 0, len(text)
    while begin < end and _is_blank(text[begin]):
        begin += 1
    while end > begin and _is_blank(text[end - 1]):
        end -= 1
    name = _BLANKS_AND_HYPHENS.sub("_", text[begin:end])
    return _ALIASES.get(name, name)


def _is_blank(character: str) -> bool:
    return (
        character.isspace()
        or character in _JOINERS
        or character in _BLANK_LETTERS
        or unicodedata.category(character) == "Cc"
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
    )
