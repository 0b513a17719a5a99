"""Which fields make up an event's content, and the 64 bits that the window keeps of it. Pure.

The same identity with other content is a conflict. By default content is what the declaration says (`schemas.event`):
Changes and Coordinates. EVENTPUSH_CONTENT_FIELDS may name other fields of the sender's API, and unknown ones.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec
import numpy as np

from schemas.event import CONTENT, SENT_FIELDS, Event
from schemas.fields import fields_of
from streams.decoding import ValidEvents
from streams.window import Words, content_words

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Content = Callable[[ValidEvents], Words]


def content_of(names: Sequence[str]) -> Content:
    """Return the function that mixes the fields with these sender's names; other names are unknown fields."""
    columns = [column for name in names for column in _columns(name)]
    return lambda events: content_words([column(events) for column in columns])


def default_content_fields() -> list[str]:
    """Return the sender's names of the declared content."""
    declared = fields_of(Event)
    sent = [declared[name].sent for name in CONTENT]
    return list(dict.fromkeys(field.name for field in sent if field is not None))


def _columns(name: str) -> list[Content]:
    known: dict[str, list[Content]] = {
        "Changes": [lambda events: np.array(events.changes, np.int64).view(np.uint64)],
        "Coordinates": [
            lambda events: (events.latitude + 0.0).view(np.uint64),  # -0.0 is 0.0
            lambda events: (events.longitude + 0.0).view(np.uint64),
        ],
        "Server_Time": [lambda events: events.server_us.view(np.uint64)],
        "Location": [lambda events: _hashes([text or "" for text in events.location])],
    }
    if name in known:
        return known[name]
    if name in SENT_FIELDS:
        return []  # part of the identity: the same by definition
    return [lambda events: _hashes([_unknown(bytes(extra), name) for extra in events.extra])]


def _unknown(extra: bytes, name: str) -> str:
    try:
        text = _members(extra).get(name)
    except msgspec.DecodeError:  # an unpaired surrogate: the whole of it stands for its parts
        return extra.decode()
    return "" if text is None else bytes(text).decode()


def _hashes(texts: Sequence[str]) -> Words:
    digests = (blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
