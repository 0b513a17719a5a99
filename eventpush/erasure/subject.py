"""Whom an erasure is about, and the deny list that names them by digest."""

from contextlib import aclosing
from dataclasses import dataclass

from eventpush.topic_reader import records
from runtime.kafka.deny_list import applied_to, deny_list
from runtime.platform.settings import Settings
from schemas.erasure import Erased, Kind
from schemas.topics import ERASED


@dataclass(frozen=True)
class Subject:
    """A device, a driver, or a device and a driver."""

    imei: str | None
    driver: str | None

    @property
    def names(self) -> dict[Kind, str]:
        """Who it is, by kind."""
        given: dict[Kind, str | None] = {"device": self.imei, "driver": self.driver}
        return {kind: name for kind, name in given.items() if name is not None}

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the conditions in `schemas.personal_data`."""
        return {"imei": self.imei or "", "driver": self.driver or ""}


async def read_deny_list(settings: Settings) -> Erased:
    """Read the deny list as it is now; raise `OperatorError` if it cannot be read with the key at hand."""
    erased = deny_list(settings)
    apply = applied_to(erased)
    async with aclosing(records(settings, ERASED)) as batches:
        async for _, found in batches:
            for record in found:
                apply(record.key, record.value)
    return erased
