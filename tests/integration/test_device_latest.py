"""The latest state of each device, on a real Kafka, though workers die."""

import json
from typing import Any

from schemas.sent_schema import example
from schemas.topics import LATEST
from tests.integration.pipeline_support import until
from tests.integration.subscriber_fixture import Publisher, publisher

__all__ = ["publisher"]


def sent(imei: str, second: int, **fields: Any) -> dict[str, Any]:
    """An event of a device at a second."""
    time = f"2026-11-26T10:00:{second:02d}.000000+0000"
    return example("overspeed") | {"IMEI": imei, "Device_Time": time, "Server_Time": time} | fields


def states(publisher: Publisher, imei: str) -> list[dict[str, Any]]:
    """What was published of a device, in order."""
    found = [record for record in publisher.records(LATEST) if (record.key() or b"").decode() == imei]
    return [json.loads(record.value() or b"") for record in found]


def test_a_late_event_never_moves_a_state_back_though_workers_die(publisher: Publisher) -> None:
    """A worker is killed; the next one has the states from the topic, ignores late events and takes newer ones."""
    imei = "350612075195931"
    publisher.post(sent(imei, 30, Event="sos"))
    until(lambda: states(publisher, imei) or None, "the first state")
    publisher.replace_streams()
    publisher.post(sent(imei, 20), sent(imei, 10, Event="power_cut"))
    publisher.post(sent(imei, 40, Coordinates="1.5,2.5"))
    until(lambda: len(states(publisher, imei)) > 1 or None, "the second state")
    first, second = states(publisher, imei)
    assert (first["event"], first["device_time"]) == ("sos", "2026-11-26T10:00:30.000000Z")
    assert (second["event"], second["device_time"]) == ("overspeed", "2026-11-26T10:00:40.000000Z")
    assert (second["latitude"], second["longitude"], second["severity"]) == (1.5, 2.5, "warning")
