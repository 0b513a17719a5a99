"""How many partitions a topic has, as a producer relies on it that chooses the partition by the key.

A producer may learn of more partitions five minutes late, and go on in the old ones. So the number is asked for again
before a write if it is older than `KNOWN_FOR_S`.
"""

import time

from aiokafka import AIOKafkaProducer

from runtime.adapters.aiokafka import partitions_now

#: How old the number may be when a record is handed to the producer, in seconds.
KNOWN_FOR_S = 2.0


class PartitionsAddedError(Exception):
    """The topic has another number of partitions by now."""


class PartitionCount:
    """The number of partitions of one topic."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int, asked_s: float) -> None:
        """Take the number, and when it was asked for (monotonic)."""
        self._producer = producer
        self._topic = topic
        self.partitions = partitions
        self._asked_s = asked_s

    async def confirm(self) -> None:
        """Return if the number still holds; raise `PartitionsAddedError` if not, KafkaError if Kafka does not say."""
        asked_s = time.monotonic()
        if asked_s - self._asked_s < KNOWN_FOR_S:
            return
        now = await partitions_now(self._producer, self._topic)
        if now != self.partitions:
            raise PartitionsAddedError(f"{self._topic} has {now} partitions, not {self.partitions}")
        self._asked_s = asked_s
