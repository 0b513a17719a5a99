"""The devices' registry, as the compacted topic has it now: read to its end at start, then followed."""

import asyncio

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings
from schemas import topics
from schemas.device import Device

log = structlog.get_logger()

_decode = msgspec.json.Decoder(Device).decode


class DeviceRegistry:
    """`devices`: IMEI → entry, always up to date; `loaded` is set when the topic had been read to its end once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.devices: dict[str, Device] = {}
        self.loaded = asyncio.Event()

    async def follow(self) -> None:
        """Read the topic for ever."""
        consumer = AIOKafkaConsumer(
            **consumer_connection(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
        )
        await consumer.start()
        try:
            tps = [TopicPartition(topics.DEVICES, p) for p in range(self._settings.topic_partitions)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            while True:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        self.apply(record.key, record.value)
                if not self.loaded.is_set() and await _reached(consumer, ends):
                    self.loaded.set()
                    log.info("registry loaded", devices=len(self.devices))
        finally:
            await consumer.stop()

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take over one record of the topic; a null value removes the device."""
        imei = (key or b"").decode("ascii", "replace")
        if value is None:
            self.devices.pop(imei, None)
            return
        try:
            self.devices[imei] = _decode(value)
        except msgspec.MsgspecError as error:
            log.warning("registry entry ignored", imei=imei, error=str(error))


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    return all([await consumer.position(tp) >= end for tp, end in ends.items()])
