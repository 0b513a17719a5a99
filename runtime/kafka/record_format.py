"""Records as a batch of Kafka holds them (magic 2, KIP-98), encoded by the column. Pure.

    Record => Length Attributes TimestampDelta OffsetDelta Body
    Body   => KeyLength Key ValueLength Value HeaderCount (NameLength Name ValueLength Value)*

A record's body is the same on every topic that it goes to, so it is encoded once. aiokafka's builder encodes record by
record and header by header, which takes three times as long with the eight headers of an event.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from schemas.column_types import Int64s

#: A record to publish: key, value, timestamp in ms since the epoch.
Output = tuple[bytes | None, bytes, int]

_MORE = 0x80  # of a varint's byte: another one follows
_SHORT_MAX = 2**15
_GROUP_RECORDS = 500
_MEMBERS_MAX_BYTES = 16  # length, attributes, timestamp and offset of one record, nearly always


class Records(NamedTuple):
    """Records without their place in a batch, as columns."""

    bodies: Sequence[bytes]
    sizes: Int64s  # of the bodies, in bytes
    timestamps_ms: Int64s  # since the epoch

    def at(self, positions: Sequence[int]) -> "Records":
        """Return those at these positions."""
        bodies = itemgetter(*positions)(self.bodies) if len(positions) > 1 else [self.bodies[at] for at in positions]
        return Records(bodies, self.sizes[positions], self.timestamps_ms[positions])

    def between(self, begin: int, end: int) -> "Records":
        """Return those from one position up to another."""
        return Records(self.bodies[begin:end], self.sizes[begin:end], self.timestamps_ms[begin:end])


class Batch(NamedTuple):
    """The records of one batch, one after the other."""

    records: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    data: bytes


NO_RECORDS = Records([], np.zeros(0, np.int64), np.zeros(0, np.int64))


def varint(number: int) -> bytes:
    """Encode a signed integer of up to 64 bits (zigzag, as in protocol buffers)."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest >= _MORE:
        encoded.append(rest & (_MORE - 1) | _MORE)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_SHORT = [varint(number) for number in range(_SHORT_MAX)]
_SHORT_SIZES = np.array([len(encoded) for encoded in _SHORT])


def encode_header(name: str, value: bytes) -> bytes:
    """Encode one header of a record."""
    encoded = name.encode()
    return b"".join((varint(len(encoded)), encoded, varint(len(value)), value))


def encode_headers(headers: Mapping[str, bytes]) -> bytes:
    """Encode a record's headers, with their count in front."""
    return varint(len(headers)) + b"".join(encode_header(name, value) for name, value in headers.items())


NO_HEADERS = encode_headers({})


def encode_records(
    keys: Sequence[bytes | None], values: Sequence[bytes], timestamps_ms: Int64s, *headers: Iterable[bytes]
) -> Records:
    """Encode the body of each record. Its headers are encoded already, in one column or in several to be joined."""
    key_sizes = np.array([-1 if key is None else len(key) for key in keys], np.int64)
    value_sizes = _sizes(values)
    columns = _varints(key_sizes)[0], [key or b"" for key in keys], _varints(value_sizes)[0], values, *headers
    bodies = list(map(b"".join, zip(*columns, strict=False)))
    return Records(bodies, _sizes(bodies), timestamps_ms)


def records_of(outputs: Sequence[Output]) -> Records:
    """Encode records without headers; there is at least one."""
    keys, values, timestamps_ms = zip(*outputs, strict=True)
    return encode_records(keys, values, np.array(timestamps_ms, np.int64), repeat(NO_HEADERS))


def joined(parts: Sequence[Records]) -> Records:
    """Return the records of all parts; there is at least one."""
    bodies = list(chain.from_iterable(part.bodies for part in parts))
    sizes, timestamps_ms = (np.concatenate(columns) for columns in list(zip(*parts, strict=True))[1:])
    return Records(bodies, sizes, timestamps_ms)


def batches_of(parts: Sequence[Records], max_bytes: int) -> list[list[Batch]]:
    """Put the records of each part into as few batches as hold them at `max_bytes` each; none is empty.

    A larger record has a batch to itself. All parts are encoded at once: many of a transaction's have few records.
    """
    pieces = [_pieces(records, max_bytes) for records in parts]
    encoded = chain.from_iterable(map(_encoded, _groups(chain.from_iterable(pieces))))
    return [list(islice(encoded, len(of_part))) for of_part in pieces]


def _groups(pieces: Iterable[Records]) -> Iterator[list[Records]]:
    """Group pieces by some hundreds of records, which stay in the processor's cache."""
    group, count = list[Records](), 0
    for records in pieces:
        group.append(records)
        count += len(records.bodies)
        if count >= _GROUP_RECORDS:
            yield group
            group, count = [], 0
    if group:
        yield group


def _pieces(records: Records, max_bytes: int) -> list[Records]:
    """Cut the records into what fits into a batch each."""
    filled_bytes = np.cumsum(records.sizes + _MEMBERS_MAX_BYTES)
    if filled_bytes[-1] <= max_bytes:
        return [records]
    pieces = list[Records]()
    begin = before_bytes = 0
    while begin < len(records.bodies):
        end = max(int(np.searchsorted(filled_bytes, before_bytes + max_bytes, "right")), begin + 1)
        pieces.append(records.between(begin, end))
        begin, before_bytes = end, int(filled_bytes[end - 1])
    return pieces


def _encoded(pieces: Sequence[Records]) -> list[Batch]:
    """Encode each piece as one batch; there is at least one."""
    counts = np.array([len(records.bodies) for records in pieces])
    ends = np.cumsum(counts)
    begins = ends - counts
    sizes, timestamps_ms = (np.concatenate(columns) for columns in list(zip(*pieces, strict=True))[1:])
    first_ms, max_ms = timestamps_ms[begins], np.maximum.reduceat(timestamps_ms, begins)
    timestamps, timestamp_sizes = _varints(timestamps_ms - np.repeat(first_ms, counts))
    offsets, offset_sizes = _varints(np.arange(len(sizes)) - np.repeat(begins, counts))
    lengths, _ = _varints(1 + timestamp_sizes + offset_sizes + sizes)
    bodies = chain.from_iterable(records.bodies for records in pieces)
    members = list(zip(lengths, repeat(b"\0"), timestamps, offsets, bodies, strict=False))  # attributes are not in use
    places = zip(counts.tolist(), begins.tolist(), ends.tolist(), first_ms.tolist(), max_ms.tolist(), strict=True)
    return [
        Batch(count, first, latest, b"".join(chain.from_iterable(members[begin:end])))
        for count, begin, end, first, latest in places
    ]


def _varints(numbers: Int64s) -> tuple[list[bytes], Int64s]:
    """Encode each integer; return the sizes too."""
    if numbers.min(initial=0) >= 0 and numbers.max(initial=0) < _SHORT_MAX:
        return list(map(_SHORT.__getitem__, numbers.tolist())), _SHORT_SIZES[numbers]
    encoded = list(map(varint, numbers.tolist()))
    return encoded, _sizes(encoded)


def _sizes(texts: Sequence[bytes]) -> Int64s:
    return np.fromiter(map(len, texts), np.int64, len(texts))
