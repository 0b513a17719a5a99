"""The devices' registry, as the compacted topic has it now: read to its end at start, then followed."""

import asyncio
import time

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from runtime.kafka.connection import consumer_connection
from runtime.platform.settings import Settings
from schemas import times, topics
from schemas.device import Device

log = structlog.get_logger()

_HOUR_US = 3_600_000_000
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
            isolation_level="read_committed",  # a load is one transaction
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
            self.devices[imei] = self._recent(_decode(value))
        except msgspec.MsgspecError as error:
            log.warning("registry entry ignored", imei=imei, error=str(error))

    def _recent(self, device: Device) -> Device:
        """Leave out what had ended before any event that Kafka may still have: years of history take no memory."""
        if device.intervals is None:
            return device
        oldest = times.rfc3339(time.time_ns() // 1000 - self._settings.topic_retention_h * _HOUR_US)
        recent = tuple(i for i in device.intervals if i.valid_to is None or i.valid_to > oldest)
        return msgspec.structs.replace(device, intervals=recent)


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    return all([await consumer.position(tp) >= end for tp, end in ends.items()])
