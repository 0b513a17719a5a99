"""A consumer can be stopped at any moment, without an error of its own."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from runtime.adapters import aiokafka_closing

TOPIC_PARTITION = TopicPartition("telematics.account.v1", 0)


class BrokerAway:
    """A client whose broker has just died."""

    _metadata_max_age_ms = 300_000

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = SimpleNamespace(leader_for_partition=lambda _partition: 0)
        self.failed = asyncio.Event()

    async def send(self, *_request: Any) -> None:
        self.failed.set()
        raise KafkaConnectionError("connection lost")


async def test_a_consumer_is_stopped_while_a_failed_fetch_waits() -> None:
    """The wait before a fetch is repeated is cancelled; nothing of that reaches whoever stops the consumer."""
    aiokafka_closing.install()
    state, client = SubscriptionState(), BrokerAway()
    fetcher = Fetcher(client, state, retry_backoff_ms=60_000)
    state.assign_from_user({TOPIC_PARTITION})
    state.seek(TOPIC_PARTITION, 0)
    await client.failed.wait()
    await asyncio.sleep(0)
    await asyncio.wait_for(fetcher.close(), 10)
