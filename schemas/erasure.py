"""The deny list of erased devices and drivers: the record on `telematics.erased.v1`, and who is on the list. Pure.

The key of a record is a keyed digest of the IMEI or the driver's name, so the list itself names nobody: whoever lacks
the key cannot even try all IMEIs.
"""

import re
from base64 import b64decode
from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Kind = Literal["device", "driver"]

_DIGEST_BYTES = 16
_KEY_ID_BYTES = 4

#: An IMEI as it may stand in any text: 15 digits and no more.
_IMEI = re.compile(rb"(?<![0-9])[0-9]{15}(?![0-9])")


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """An entry of the deny list."""

    kind: Annotated[Kind, Meta(description="what the digest stands for: a device's IMEI, or a driver's name")]
    key_id: Annotated[str, Meta(description="which key the digest was made with: a digest of the key")]
    erased_at: Annotated[str, Meta(description="when the erasure began, RFC 3339, UTC")]


decode = msgspec.json.Decoder(Erasure).decode
encode = msgspec.json.Encoder().encode


class Pseudonyms:
    """Digests under a secret key (BLAKE2b, RFC 7693, section 2.9)."""

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode()).digest()
        self.key_id = blake2b(self._key, digest_size=_KEY_ID_BYTES).hexdigest()

    def of(self, kind: Kind, name: str) -> str:
        """Return the digest of an IMEI or a driver's name, 32 hexadecimal digits."""
        return blake2b(f"{kind}\0{name}".encode(), digest_size=_DIGEST_BYTES, key=self._key).hexdigest()


class OtherKeyError(Exception):
    """An entry was made with another key than the one at hand."""


class _About(msgspec.Struct, gc=False):
    """Whom an event or a dead letter is about."""

    imei: str | None = None
    driver: str | None = None
    stage: str = ""
    payload: str = ""
    payload_encoding: str = ""


_decode_about = msgspec.json.Decoder(_About).decode


class Erased:
    """The deny list as it is now. `pseudonyms` is called once there is an entry: an empty list needs no key.

    False as long as nobody is on it, so that the path of an event costs nothing then.
    """

    def __init__(self, pseudonyms: Callable[[], Pseudonyms]) -> None:
        self._pseudonyms_of = pseudonyms
        self._pseudonyms: Pseudonyms | None = None
        self._entries: dict[str, Erasure] = {}
        self._devices: set[str] = set()
        self._drivers: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take over a record of the topic; one without a value takes the entry off the list.

        Raise `OtherKeyError` for an entry of another key, and what `pseudonyms` raises.
        """
        digest = (key or b"").decode("ascii", "replace")
        if value is None:
            self._entries.pop(digest, None)
            self._devices.discard(digest)
            self._drivers.discard(digest)
        else:
            entry = decode(value)
            self._pseudonyms = self._pseudonyms or self._pseudonyms_of()
            if entry.key_id != self._pseudonyms.key_id:
                raise OtherKeyError(entry.key_id, self._pseudonyms.key_id)
            self._entries[digest] = entry
            (self._devices if entry.kind == "device" else self._drivers).add(digest)

    def entry(self, kind: Kind, name: str) -> Erasure | None:
        """Return the entry of an IMEI or a driver's name."""
        return self._entries.get(self._pseudonyms.of(kind, name)) if self._pseudonyms else None

    def has_device(self, imei: str) -> bool:
        """Return whether the device is on the list."""
        return bool(self._devices) and self._digest("device", imei) in self._devices

    def has_driver(self, driver: str | None) -> bool:
        """Return whether the driver is on the list."""
        return bool(self._drivers) and driver is not None and self._digest("driver", driver) in self._drivers

    def mentions(self, text: bytes) -> bool:
        """Return whether an IMEI on the list stands anywhere in the text."""
        return bool(self._devices) and any(self.has_device(found.group().decode()) for found in _IMEI.finditer(text))

    def is_about(self, value: bytes | None) -> bool:
        """Return whether an event or a dead letter, as it is on its topic, is about someone on the list."""
        if not self._entries or value is None:
            return False
        try:
            about = _decode_about(value)
        except msgspec.MsgspecError:
            return False
        if (about.imei is not None and self.has_device(about.imei)) or self.has_driver(about.driver):
            return True
        if not about.payload:
            return False
        payload = about.payload.encode() if about.payload_encoding == "utf-8" else b64decode(about.payload)
        return self.mentions(payload) or (about.stage == "sink" and self.is_about(payload))

    def _digest(self, kind: Kind, name: str) -> str:
        assert self._pseudonyms is not None  # noqa: S101 - there is an entry
        return self._pseudonyms.of(kind, name)


def _no_key() -> Pseudonyms:
    raise LookupError("nobody is on this list")


#: A list with nobody on it, for tests and the benchmark.
NOBODY = Erased(_no_key)
