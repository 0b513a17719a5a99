"""Where ClickHouse keeps what is about a device or its driver, declared once: what `eventpush erase` deletes.

`tests/integration/test_erasure.py` fails when a table with a column of that kind is not declared here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.tables import DEAD_LETTERS, EVENTS

#: Columns that make a table one that must be declared.
PERSONAL_COLUMNS = frozenset({"imei", "driver", "payload", "dead_letter_id"})

_IS_DEVICE = "imei = {imei:String}"
_IS_DRIVER = "driver = {driver:String}"
_MENTIONS = "match(%s, concat('(^|[^0-9])', {imei:String}, '([^0-9]|$)'))"
#: The payload of a dead letter as it was sent.
PAYLOAD = "if(payload_encoding = 'utf-8', payload, tryBase64Decode(payload))"


@dataclass(frozen=True)
class PersonalTable:
    """A table, with the conditions for a row about the device `{imei:String}` or the driver `{driver:String}`.

    `key` names the column whose values are selected before the deletion, where the conditions ask other tables: a
    replicated table takes no subquery in a mutation.
    """

    name: str
    device: str
    driver: str = ""
    key: str = ""

    def condition(self, *, device: bool, driver: bool) -> str:
        """Return the condition for a row about either; empty if no row of this table can be."""
        wanted = ((device, self.device), (driver, self.driver))
        return " OR ".join(f"({condition})" for is_asked, condition in wanted if is_asked and condition)


_EVENTS = PersonalTable(EVENTS.store, _IS_DEVICE, _IS_DRIVER)
_DEAD_LETTERS = PersonalTable(
    DEAD_LETTERS.store,
    f"ifNull({_IS_DEVICE}, false) OR {_MENTIONS % PAYLOAD}",
    "stage = 'sink' AND JSONExtractString(payload, 'driver') = {driver:String}",
)


def _replayed(condition_of: str) -> str:
    letters, events = getattr(_DEAD_LETTERS, condition_of), getattr(_EVENTS, condition_of)
    return (
        f"dead_letter_id IN (SELECT dead_letter_id FROM {_DEAD_LETTERS.name} WHERE {letters})"  # noqa: S608
        f" OR event_id IN (SELECT event_id FROM {_EVENTS.name} WHERE {events})"
    )


#: In the order of deletion: what refers to other rows goes before them.
SOURCES: Sequence[PersonalTable] = (
    PersonalTable("telematics.replayed_store", _replayed("device"), _replayed("driver"), key="dead_letter_id"),
    PersonalTable("telematics.replays_store", _MENTIONS % "concat(selection, ' ', repair)"),
    _DEAD_LETTERS,
    _EVENTS,
    PersonalTable(
        "telematics.devices_store", _IS_DEVICE, "arrayExists(held -> held.driver = {driver:String}, intervals)"
    ),
)
#: Deleted once the rollups have been computed without the rows above; the marks last, as they name what to compute.
DERIVED: Sequence[PersonalTable] = (
    PersonalTable("telematics.device_latest_store", _IS_DEVICE, _IS_DRIVER),
    PersonalTable("telematics.events_daily_as_of_store", "", _IS_DRIVER),
    PersonalTable("telematics.rollup_marks", _IS_DEVICE),
)


@dataclass(frozen=True)
class Rollup:
    """A rollup that is recomputed where `rollup_marks` says so: its view, and the bucket of its watermark."""

    name: str
    watermark: str

    @property
    def store(self) -> str:
        """The store's name, with its database."""
        return f"telematics.{self.name}_store"


HOURLY = Rollup("events_hourly", "hour = toDateTime('2106-02-07 06:00:00', 'UTC')")
DAILY = Rollup("events_daily", "day = toDate('2149-06-06')")
LATEST = Rollup("device_latest", "imei = '~'")
DAILY_AS_OF = Rollup("events_daily_as_of", DAILY.watermark)
ROLLUPS = (HOURLY, DAILY, DAILY_AS_OF, LATEST)
