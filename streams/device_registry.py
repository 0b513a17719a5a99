"""The devices' registry, as the compacted topic has it now, and the deny list: read to their ends, then followed."""

import asyncio
import time

import msgspec
import structlog

from runtime.kafka import table_topic
from runtime.kafka.deny_list import applied_to, deny_list
from runtime.platform.settings import Settings
from schemas import times, topics
from schemas.device import Device

log = structlog.get_logger()

_HOUR_US = 3_600_000_000
_decode = msgspec.json.Decoder(Device).decode


class DeviceRegistry:
    """`devices`: IMEI → entry, always up to date; `loaded` is set when the topics had been read to their ends once.

    `erased` is the deny list: its drivers are in no entry.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.devices: dict[str, Device] = {}
        self.erased = deny_list(settings)
        self.loaded = asyncio.Event()

    async def follow(self) -> None:
        """Read the topics for ever."""
        tables = {topics.DEVICES: self.apply, topics.ERASED: applied_to(self.erased, self.forget_drivers)}
        await table_topic.follow(self._settings, tables, self.finish_loading)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take over one record of the topic; a null value removes the device."""
        imei = (key or b"").decode("ascii", "replace")
        if value is None:
            self.devices.pop(imei, None)
            return
        try:
            self.devices[imei] = self._allowed(self._recent(_decode(value)))
        except msgspec.MsgspecError as error:
            log.warning("registry entry ignored", imei=imei, error=str(error))

    def _recent(self, device: Device) -> Device:
        """Leave out what had ended before any event that Kafka may still have: years of history take no memory."""
        if device.intervals is None:
            return device
        oldest = times.rfc3339(time.time_ns() // 1000 - self._settings.topic_retention_h * _HOUR_US)
        recent = tuple(i for i in device.intervals if i.valid_to is None or i.valid_to > oldest)
        return msgspec.structs.replace(device, intervals=recent)

    def _allowed(self, device: Device) -> Device:
        return device.without_drivers(self.erased.has_driver) if self.erased else device

    def finish_loading(self) -> None:
        """Note that the topics were read to their ends, in whatever order."""
        self.loaded.set()
        self.forget_drivers()
        log.info("registry loaded", devices=len(self.devices), erased=len(self.erased))

    def forget_drivers(self) -> None:
        """Take erased drivers out of all entries; while loading, that would be done for each entry of the list."""
        if self.loaded.is_set():
            self.devices.update({imei: self._allowed(device) for imei, device in self.devices.items()})
