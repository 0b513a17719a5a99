"""The devices' registry, as the compacted topic has it now, and the deny list: read to their ends, then followed."""

import asyncio

import msgspec
import structlog

from runtime.kafka import table_topic
from runtime.kafka.deny_list import applied_to, deny_list
from runtime.platform.settings import Settings
from schemas import topics
from schemas.device import Device

log = structlog.get_logger()

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
        tables = {topics.DEVICES: self.apply, topics.ERASED: applied_to(self.erased, self._without_erased_drivers)}
        log_loaded = asyncio.create_task(self._log_loaded())
        try:
            await table_topic.follow(self._settings, tables, self.loaded)
        finally:
            log_loaded.cancel()

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take over one record of the topic; a null value removes the device."""
        imei = (key or b"").decode("ascii", "replace")
        if value is None:
            self.devices.pop(imei, None)
            return
        try:
            self.devices[imei] = self._allowed(_decode(value))
        except msgspec.MsgspecError as error:
            log.warning("registry entry ignored", imei=imei, error=str(error))

    def _allowed(self, device: Device) -> Device:
        return msgspec.structs.replace(device, driver=None) if self.erased.has_driver(device.driver) else device

    def _without_erased_drivers(self) -> None:
        self.devices.update({
            imei: self._allowed(device)
            for imei, device in self.devices.items()
            if self.erased.has_driver(device.driver)
        })  # fmt: skip

    async def _log_loaded(self) -> None:
        await self.loaded.wait()
        log.info("registry loaded", devices=len(self.devices), erased=len(self.erased))
