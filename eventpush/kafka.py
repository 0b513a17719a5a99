"""Kafka, as the commands use it."""

from runtime.errors import Problem
from runtime.settings import Settings
from runtime.topics_admin import admin


async def require_topic(settings: Settings, topic: str) -> int:
    """How many partitions the topic has; raises `Problem` when it is not there, or Kafka is not."""
    async with admin(settings) as client:
        for described in await client.describe_topics():
            if described["topic"] == topic:
                return len(described["partitions"])
    raise Problem(
        f"Kafka at {settings.kafka_bootstrap} has no topic {topic}",
        "run `eventpush topics`; an event type's own topic comes with its first event",
    )
