"""What was sent and what the pipeline shows of it, read once more from the bytes: nothing is taken from the product."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from tests.faults.history import Seen

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Identity(NamedTuple):
    """What makes two deliveries one event."""

    imei: str
    device_us: int
    event: str
    geofence: str | None


class Content(NamedTuple):
    """What must be equal in two deliveries of one event."""

    changes: int
    latitude: float
    longitude: float


class Details(NamedTuple):
    """What the platform may write differently in two deliveries; it must be that of one of them."""

    server_us: int
    location: str


def read_sent(payload: str) -> tuple[Identity, Content, Details] | None:
    """What was sent, or None if the contract's rules are broken."""
    try:
        sent = orjson.loads(payload)
        latitude, longitude = map(float, sent["Coordinates"].split(","))
        device_us, server_us = us(sent["Device_Time"]), us(sent["Server_Time"])
        kept = (
            len(sent["IMEI"]) == 15
            and sent["IMEI"].isdigit()
            and sent["Event"].strip()
            and isinstance(sent["Changes"], int)
            and device_us <= server_us
            and abs(latitude) <= 90
            and abs(longitude) <= 180
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not kept:
        return None
    identity = Identity(sent["IMEI"], device_us, _event_type(sent["Event"]), sent.get("Geofence_Name"))
    return identity, Content(sent["Changes"], latitude, longitude), Details(server_us, sent["Location"])


def _event_type(event: str) -> str:
    """The type's name as the topics show it, for the names that the load sends: "Harsh Brake" is `harsh_brake`."""
    return "_".join(event.lower().replace("-", " ").split())


class CleanEvent(NamedTuple):
    """An event as the pipeline shows it."""

    identity: Identity
    content: Content
    details: Details
    event_id: str
    where: str
    raw: tuple[int, int] | None  # partition and offset of the raw record that it was made of

    @classmethod
    def of_record(cls, seen: Seen) -> "CleanEvent":
        return cls.of_json(seen.value, f"{seen.topic}[{seen.partition}]@{seen.offset}")

    @classmethod
    def of_json(cls, text: str, where: str) -> "CleanEvent":
        value = orjson.loads(text)
        times = {name: us(value[name]) for name in ("device_time", "server_time")}
        return cls._of(value | times, where)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "CleanEvent":
        return cls._of(row, "ClickHouse")

    @classmethod
    def _of(cls, value: Mapping[str, Any], where: str) -> "CleanEvent":
        return cls(
            Identity(value["imei"], value["device_time"], value["event"], value["geofence_name"]),
            Content(value["changes"], value["latitude"], value["longitude"]),
            Details(value["server_time"], value["location"]),
            value["event_id"],
            where,
            (raw["partition"], raw["offset"]) if isinstance(raw := value.get("raw"), dict) else None,
        )


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)
