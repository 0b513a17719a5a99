"""Following a topic: committed records as they come, and an event as a line for people."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from eventpush.kafka import consumer_of
from runtime.settings import Settings


async def values(settings: Settings, topic: str, *, from_beginning: bool) -> AsyncGenerator[bytes, None]:
    """Yield the values of the topic's committed records, without end; raise `Problem` if the topic does not exist."""
    async with consumer_of(settings, topic) as (consumer, partitions):
        await (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)(*partitions)
        async for record in consumer:
            if record.value is not None:
                yield record.value


def line(value: bytes) -> str:
    """Render an event or a dead letter in one readable line; anything else as it is."""
    try:
        fields = msgspec.json.decode(value, type=dict[str, Any])
        return _dead_letter(fields) if "dead_letter_id" in fields else _event(fields)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return printable(value.decode("utf-8", "replace"))


def _event(event: Mapping[str, Any]) -> str:
    whose = " ".join(filter(None, (event["vehicle"], event["fleet"], event["driver"]))) or "-"
    where = f"{event['latitude']:.5f},{event['longitude']:.5f}"
    place = " · ".join(filter(None, (event["geofence_name"], event["location"])))
    parts = (
        event["device_time"],
        f"{event['event']:<14}",
        f"{event['changes']:>6}",
        event["imei"],
        whose,
        where,
        place,
    )
    return printable("  ".join(parts))


def _dead_letter(letter: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{reason['field']} {reason['code']}".strip() for reason in letter["reasons"])
    parts = (letter["received_at"], letter["event"] or "-", letter["imei"] or "-", reasons, letter["payload"])
    return printable("  ".join(parts))


def printable(text: str) -> str:
    """Escape control characters: foreign bytes must not move the terminal's cursor."""
    return "".join(c if c.isprintable() else "�" for c in text)
