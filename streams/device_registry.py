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
        tables = {topics.DEVICES: self.apply, topics.ERASED: applied_to(self.erased, self.forget_drivers)}
        await table_topic.follow(self._settings, tables, self.finish_loading)

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

    def finish_loading(self) -> None:
        """Note that the topics were read to their ends, in whatever order."""
        self.loaded.set()
        self.forget_drivers()
        log.info("registry loaded", devices=len(self.devices), erased=len(self.erased))

    def forget_drivers(self) -> None:
        """Take erased drivers out of all entries; while loading, that would be done for each entry of the list."""
        if self.loaded.is_set():
            found = {imei: device for imei, device in self.devices.items() if self.erased.has_driver(device.driver)}
            self.devices.update({imei: self._allowed(device) for imei, device in found.items()})
