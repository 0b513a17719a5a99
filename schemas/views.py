"""The views for analysts, declared: what each answers, its parameters, and its columns with their meaning.

`schemas/migrations/` creates them; a test compares what ClickHouse says of each with what is declared here, and
`docs/analysts.md` shows the declaration. A view with parameters is called like a function, with all of them by name:

    SELECT * FROM telematics.geofence_visits(begin = '2026-06-01', end = '2026-07-01')
"""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.device import DRIVER, FLEET, VEHICLE
from schemas.fields import TIME, WORD, WORD_OR_NULL
from schemas.tables import DATABASE, EVENTS, INSERTED_AT

_TIME_OR_NULL = f"Nullable({TIME})"
_DEVICE = {
    "imei": ("String", "15 digits"),
    "vehicle": (WORD_OR_NULL, "the device's vehicle in the registry on arrival"),
    "fleet": (WORD_OR_NULL, "the device's fleet in the registry on arrival"),
    "driver": (WORD_OR_NULL, "the device's driver in the registry on arrival"),
}
_HELD = {
    name: (WORD_OR_NULL, f"the {name} by the registry, as of device_time") for name in ("vehicle", "fleet", "driver")
}
_PLACE = {
    "latitude": ("Float64", "degrees north, WGS 84"),
    "longitude": ("Float64", "degrees east, WGS 84"),
    "location": ("Nullable(String)", "address for people, as sent"),
}
_MEASURES = {
    "changes_sum": ("Int64", "sum of changes"),
    "changes_min": ("Int64", "least changes"),
    "changes_max": ("Int64", "greatest changes"),
    "device_delay_ms_sum": ("Int64", "sum of device_delay_ms; divided by events, the mean"),
    "device_delay_ms_max": ("Int64", "greatest device_delay_ms"),
    "platform_delay_ms_sum": ("Int64", "sum of platform_delay_ms; divided by events, the mean"),
    "platform_delay_ms_max": ("Int64", "greatest platform_delay_ms"),
}
_GROUP = {
    "event": (WORD, "event type"),
    "category": (WORD, "what the type is about"),
    "severity": (WORD, "info, warning or critical"),
    "fleet": (WORD_OR_NULL, "the fleet in the registry on arrival"),
}
_DEVICE_TIMES = {"begin": (TIME, "first device_time"), "end": (TIME, "end of the period, not included")}
_ARRIVALS = {"begin": (TIME, "first received_at"), "end": (TIME, "end of the period, not included")}


@dataclass(frozen=True)
class View:
    """A view: the question that it answers, and name → (type, meaning) of its parameters and columns."""

    name: str
    question: str
    columns: Mapping[str, tuple[str, str]]
    parameters: Mapping[str, tuple[str, str]]

    @property
    def full_name(self) -> str:
        """The name with its database."""
        return f"{DATABASE}.{self.name}"


EVENTS_HOURLY = View(
    "events_hourly",
    "How many events of each type, severity, fleet and sender were there in each hour? For dashboards over months. "
    "By vehicle it would have about as many rows as there are events: events_daily has the vehicle.",
    {
        "hour": ("DateTime('UTC')", "hour of device_time"),
        **_GROUP,
        "sender": (WORD_OR_NULL, "name of the sender's token or secret"),
        "events": ("UInt64", "number of events"),
        "devices": ("UInt64", "number of devices; do not add it up over rows"),
        "vehicles": ("UInt64", "number of vehicles; do not add it up over rows"),
        **_MEASURES,
    },
    {},
)

EVENTS_DAILY = View(
    "events_daily",
    "How many events of each type, severity, fleet, vehicle and sender were there on each day?",
    {
        "day": ("Date", "day of device_time, in UTC"),
        **_GROUP,
        "vehicle": (WORD_OR_NULL, "the vehicle in the registry on arrival"),
        "sender": (WORD_OR_NULL, "name of the sender's token or secret"),
        "events": ("UInt64", "number of events"),
        "devices": ("UInt64", "number of devices; do not add it up over rows"),
        **_MEASURES,
    },
    {},
)

DEVICE_LATEST = View(
    "device_latest",
    "What did each device report last, and where?",
    {
        "imei": _DEVICE["imei"],
        "device_time": (TIME, "when the device last reported, by its clock"),
        "event": (WORD, "event type"),
        "changes": ("Int64", "the type's own value"),
        **_PLACE,
        "geofence_name": (WORD_OR_NULL, "NULL when none was sent"),
        "category": (WORD, "what the type is about"),
        "severity": (WORD, "info, warning or critical"),
        **{name: _DEVICE[name] for name in ("vehicle", "fleet", "driver")},
        "received_at": (TIME, "when the ingress accepted it"),
        "event_id": ("UUID", "the event, in telematics.events"),
    },
    {},
)

GEOFENCE_VISITS = View(
    "geofence_visits",
    "Who was in which geofence, from when to when, and how long? Enter and exit events are ordered by the devices' "
    "clocks, so late ones are in their place. Events of the type `geofence`, which do not say which of the two they "
    "are, are left out.",
    {
        **_DEVICE,
        "geofence_name": (WORD_OR_NULL, "the geofence, as sent"),
        "entered_at": (_TIME_OR_NULL, "when it entered, by the device's clock; NULL when no enter event is known"),
        "exited_at": (_TIME_OR_NULL, "when it left; NULL when no exit event is known"),
        "dwell_s": ("Nullable(Int64)", "seconds between both; NULL unless both are known"),
        "is_ongoing": ("Bool", "it entered and has not left within the period"),
        "exit_missing": ("Bool", "it entered twice without an exit in between: this is the first of the two"),
        "started_before_range": ("Bool", "it left without having entered within the period"),
    },
    _DEVICE_TIMES,
)

INSIDE_NOW = View(
    "inside_now",
    "Who is inside a geofence now? Those whose last event about a geofence is that they entered it. An exit event that "
    "never came leaves a device inside: compare last_seen_at.",
    {
        **_DEVICE,
        "geofence_name": (WORD_OR_NULL, "the geofence, as sent"),
        "entered_at": (TIME, "when it last entered, by the device's clock"),
        "last_seen_at": (TIME, "the device's last event of any type"),
    },
    {},
)

OVERSPEED_BY_DRIVER = View(
    "overspeed_by_driver",
    "Which drivers exceed the limit, how often and by how much? Alarms count occurrences: there is no distance to "
    "relate them to.",
    {
        "driver": (WORD_OR_NULL, "the driver by the registry, as of device_time; NULL when unknown"),
        "fleet": _HELD["fleet"],
        "overspeeds": ("UInt64", "number of overspeed events"),
        "vehicles": ("UInt64", "number of vehicles"),
        "days": ("UInt64", "number of local days with at least one"),
        "over_kmh_mean": ("Float64", "mean of km/h above the limit"),
        "over_kmh_max": ("Int64", "greatest km/h above the limit"),
        "over_30_kmh": ("UInt64", "how many were more than 30 km/h above the limit"),
        "at_night": ("UInt64", "how many were between 22:00 and 05:00 of local time"),
        "last_at": (TIME, "when the last one was"),
    },
    _DEVICE_TIMES,
)

FUEL_SUSPECTS = View(
    "fuel_suspects",
    "Which fuel drains look like theft? Every drain of the period, with what speaks for it.",
    {
        "event_id": ("UUID", "the drain, in telematics.events"),
        **_DEVICE,
        "device_time": (TIME, "when it happened, by the device's clock"),
        "device_time_local": (TIME, "the wall clock at the place; no instant"),
        "litres": ("Int64", "litres drained"),
        **_PLACE,
        "h3_r9": ("UInt64", "H3 cell of resolution 9"),
        "without_fill": ("Bool", "the device reported no fill within an hour before or after"),
        "at_night": ("Bool", "between 22:00 and 05:00 of local time"),
        "drains_in_cell": ("UInt64", "drains of all devices in the same H3 cell within the period, this one included"),
        "power_or_tampering": ("Bool", "a power cut or tampering within 30 minutes before or after"),
        "score": (
            "UInt8",
            "how many hold: no fill, night, more than one drain in the cell, power or tampering",
        ),
    },
    _DEVICE_TIMES,
)

SOS_CONTEXT = View(
    "sos_context",
    "What happened around each SOS, and how late did it reach us?",
    {
        "event_id": ("UUID", "the SOS, in telematics.events"),
        **_DEVICE,
        "device_time": (TIME, "when it happened, by the device's clock"),
        **_PLACE,
        "delay_s": ("Float64", "seconds from the device's clock to the ingress"),
        "device_delay_s": ("Float64", "of these, before the platform had it"),
        "platform_delay_s": ("Float64", "of these, between platform and ingress"),
        "around": (
            "Array(Tuple(seconds Int64, event String, changes Int64))",
            "the device's other events within an hour before (negative) and after, in order",
        ),
        "power_cut_s": ("Nullable(Int64)", "seconds to the first power cut within the hour after it; NULL when none"),
        "silent_after": ("Bool", "no event of the device within the hour after it"),
    },
    _DEVICE_TIMES,
)

DEVICE_HEALTH = View(
    "device_health",
    "Which devices are silent, send rubbish, have a wrong clock, or are stuck? One row for each device with an event "
    "or a dead letter in the period.",
    {
        "imei": ("String", "IMEI, or what a dead letter has in its place"),
        "vehicle": (WORD_OR_NULL, "the vehicle of its last event"),
        "fleet": (WORD_OR_NULL, "the fleet of its last event"),
        "events": ("UInt64", "number of events in the period"),
        "last_event_at": (_TIME_OR_NULL, "the last event's device_time; NULL when there is none in the period"),
        "usual_gap_s": ("Nullable(Float64)", "median of the seconds between two of its events"),
        "silence_s": ("Nullable(Float64)", "seconds from its last event to the end of the period, or to now"),
        "is_silent": (
            "Bool",
            "five events or more, and silent for more than three times the longest tenth of its gaps",
        ),
        "dead_letters": ("UInt64", "number of dead letters, by arrival in the period"),
        "dead_letter_share": ("Float64", "dead letters ÷ (events + dead letters)"),
        "clock_ahead": ("UInt64", "events whose device_time is later than their arrival"),
        "delay_s_median": ("Nullable(Float64)", "median of the seconds from the device's clock to the ingress"),
        "same_position_run": ("UInt64", "longest run of events with the very same coordinates"),
        "position_zero": ("UInt64", "events at 0,0: no satellite fix"),
    },
    _DEVICE_TIMES,
)

INGESTION_WARNINGS = View(
    "ingestion_warnings",
    "Which sender sends what we refuse or find suspicious? Exact counts, by arrival.",
    {
        "sender": (WORD_OR_NULL, "name of the sender's token or secret"),
        "code": ("String", "reason code of dead letters, or code of a warning"),
        "field": ("String", "the payload's field, for reasons; empty for the whole and for warnings"),
        "category": ("String", "what it is about: payload, time, position, device, type, conflict, storage, other"),
        "severity": ("String", "error: it became no event; warning: an event that is suspicious"),
        "count": ("UInt64", "number of payloads"),
        "first_seen": (TIME, "first arrival"),
        "last_seen": (TIME, "last arrival"),
        "sample_receipt": ("Nullable(String)", "the X-Receipt-Id of the last one"),
    },
    _ARRIVALS,
)

LATENESS = View(
    "lateness",
    "How late do events come? By day, type and kind of device, the share that had arrived after a time.",
    {
        "day": ("Date", "day of device_time, in UTC"),
        "event": (WORD, "event type"),
        "tac": (WORD, "type allocation code: the IMEI's first eight digits"),
        "events": ("UInt64", "number of events"),
        "within_1h": ("Float64", "share that arrived within an hour"),
        "within_6h": ("Float64", "share that arrived within 6 hours"),
        "within_1d": ("Float64", "share that arrived within a day"),
        "within_7d": ("Float64", "share that arrived within 7 days"),
    },
    {},
)

COMPLETENESS = View(
    "completeness",
    "Up to when is everything here? Every event accepted before complete_through is in telematics.events, or in "
    "telematics.dead_letters. In all: min(complete_through).",
    {
        "partition": ("UInt32", "partition of the raw topic; a device's events are in one partition"),
        "complete_through": (TIME, "everything accepted before is stored; 1970 while nothing is proven"),
        "proven_at": (TIME, "when that was known"),
    },
    {},
)

ACCOUNT_MINUTES = View(
    "account_minutes",
    "What became of everything that was accepted? The counts of `eventpush account`, for each minute that lies in the "
    "period: accepted + replayed = unique + duplicate + dead_lettered + erased.",
    {
        "minute": ("DateTime('UTC')", "minute of arrival"),
        "event": (WORD, "event type; empty where none can be read"),
        "accepted": ("UInt64", "events from senders"),
        "replayed": ("UInt64", "dead letters that were sent again, in the minute of their first arrival"),
        "unique": ("UInt64", "of both, how many became an event"),
        "duplicate": ("UInt64", "how many repeat an earlier one"),
        "dead_lettered": ("UInt64", "how many became a dead letter"),
        "erased": ("UInt64", "how many were dropped, being of erased devices"),
        "stored": ("UInt64", "rows in telematics.events"),
        "stored_dead_letters": ("UInt64", "rows in telematics.dead_letters"),
        "not_stored": (
            "Int64",
            "unique + dead_lettered - stored - stored_dead_letters; later repeats beyond the window, or erased",
        ),
    },
    _ARRIVALS,
)

DEVICES_HISTORY = View(
    "devices_history",
    "Which vehicle, fleet and driver did each device have, and when? Intervals of a device do not overlap.",
    {
        "imei": _DEVICE["imei"],
        "vehicle": (WORD_OR_NULL, VEHICLE),
        "fleet": (WORD_OR_NULL, FLEET),
        "driver": (WORD_OR_NULL, DRIVER),
        "valid_from": (_TIME_OR_NULL, "since when; NULL: from the beginning"),
        "valid_to": (_TIME_OR_NULL, "until when, not included; NULL: until further notice"),
        "loaded_at": (TIME, "when the device's history was last changed"),
    },
    {},
)

EVENTS_AS_OF = View(
    "events_as_of",
    "Whose event was it? Every event with the vehicle, fleet and driver that the registry, as it is now, has for the "
    "moment of device_time: a late event gets the driver of then, and a corrected registry corrects the past.",
    {
        **{column.name: (column.type, column.comment) for column in (*EVENTS.columns, INSERTED_AT)},
        **_HELD,
        **{f"{name}_on_arrival": _DEVICE[name] for name in _HELD},
    },
    {},
)

EVENTS_DAILY_AS_OF = View(
    "events_daily_as_of",
    "How many events of each type, severity, fleet, vehicle and driver were there on each day, by the registry as it "
    "is now?",
    {
        "day": ("Date", "day of device_time, in UTC"),
        **_GROUP,
        **{name: _HELD[name] for name in ("fleet", "vehicle", "driver")},
        "events": ("UInt64", "number of events"),
        "devices": ("UInt64", "number of devices; do not add it up over rows"),
        **_MEASURES,
    },
    {},
)

REGISTERED_NEVER_SEEN = View(
    "registered_never_seen",
    "Which devices of the registry never sent an event?",
    {
        "imei": _DEVICE["imei"],
        **{name: (WORD_OR_NULL, f"its {name} by the registry, now") for name in _HELD},
        "valid_from": (_TIME_OR_NULL, "since when that holds; NULL: from the beginning"),
        "loaded_at": (TIME, "when the device's history was last changed"),
    },
    {},
)

VIEWS = (
    EVENTS_HOURLY,
    EVENTS_DAILY,
    EVENTS_DAILY_AS_OF,
    EVENTS_AS_OF,
    DEVICES_HISTORY,
    REGISTERED_NEVER_SEEN,
    DEVICE_LATEST,
    GEOFENCE_VISITS,
    INSIDE_NOW,
    OVERSPEED_BY_DRIVER,
    FUEL_SUSPECTS,
    SOS_CONTEXT,
    DEVICE_HEALTH,
    INGESTION_WARNINGS,
    LATENESS,
    COMPLETENESS,
    ACCOUNT_MINUTES,
)
