"""What makes two deliveries the same event: IMEI, Device_Time (the instant), Event and Geofence_Name.

Content is Changes and Coordinates: the same identity with other content is a conflict. Server_Time and Location are the
platform's and may differ between two deliveries of one event.
"""

from hashlib import blake2b
from struct import pack

from schemas.events import ValidEvent


def digest_of(event: ValidEvent) -> bytes:
    """16 bytes that stand for the identity (BLAKE2b, RFC 7693); strings hold no NUL, so none run together."""
    geofence = "" if event.geofence_name is None else "\1" + event.geofence_name
    text = f"{event.imei}\0{event.device_us}\0{event.event}\0{geofence}"
    return blake2b(text.encode(), digest_size=16).digest()


def content_of(event: ValidEvent) -> int:
    """64 bits that stand for the content."""
    packed = pack("<qdd", event.changes, event.latitude + 0.0, event.longitude + 0.0)  # -0.0 is 0.0
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")


def digest_of_payload(raw: bytes) -> bytes:
    """24 bytes that stand for bytes that are no event: a dead letter repeated byte for byte is a duplicate."""
    return blake2b(raw, digest_size=24).digest()


def uuid_text(digest: bytes) -> str:
    """The first 16 bytes in the usual notation of a UUID."""
    text = digest[:16].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
