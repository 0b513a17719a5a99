"""What makes two deliveries the same event: IMEI, Device_Time (the instant), Event (normalised) and Geofence_Name.

Content is Changes and Coordinates, unless EVENTPUSH_CONTENT_FIELDS says otherwise: the same identity with other content
is a conflict. Server_Time and Location are the platform's and may differ between two deliveries of one event.
"""

from hashlib import blake2b

_begun_digest = blake2b(digest_size=16).copy  # a third less time than to make one from its parameters


def digest_of(imei: str, device_us: int, event: str, geofence_name: str | None) -> bytes:
    """Return the identity as 16 bytes (BLAKE2b, RFC 7693); strings contain no NUL, so none run together.

    `device_us` is Device_Time in µs since the epoch, `event` is canonical.
    """
    geofence = "" if geofence_name is None else "\1" + geofence_name
    digest = _begun_digest()
    digest.update(f"{imei}\0{device_us}\0{event}\0{geofence}".encode())
    return digest.digest()


def digest_of_payload(raw: bytes) -> bytes:
    """Return 24 bytes for a payload that is no event: a dead letter repeated byte for byte is a duplicate."""
    return blake2b(raw, digest_size=24).digest()


def digest_of_attempt(raw: bytes, dead_letter_id: str, attempt: int) -> bytes:
    """24 bytes that stand for one attempt to replay a dead letter with this payload.

    So an attempt that fails is a dead letter of its own, and the same attempt made twice is a duplicate.
    """
    return blake2b(f"{dead_letter_id}\0{attempt}\0".encode() + raw, digest_size=24, person=b"eventpush replay").digest()


def uuid_text(digest: bytes) -> str:
    """Format the first 16 bytes as a UUID."""
    text = digest[:16].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_check_digit_right(imei: str) -> bool:
    """Return whether the last digit of an IMEI is its check digit (Luhn, 3GPP TS 23.003 annex B)."""
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(imei)]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0
