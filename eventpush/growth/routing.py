"""Which partition a key goes to among more partitions, and with it what is kept under the key. Pure.

A window's row of an event has its IMEI, so its partition is computed. A row of bytes that are no event has only their
digest. Their key has a hash that leaves the remainder `source` when divided by the old number of partitions; divided by
the new number it can only leave the remainders that agree with `source` modulo the numbers' greatest common divisor. So
such a row goes to all of these: where its bytes never come again it is never asked for.
"""

from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.window import Rows, imeis_of

_DIGITS = 15
_SEED, _M, _R = np.uint32(0x9747B28C), np.uint32(0x5BD1E995), np.uint32(24)  # of Kafka's murmur2
_POSITIVE = np.uint32(0x7FFFFFFF)

Partitions = npt.NDArray[np.intp]  # shape (n,)


class Growth(NamedTuple):
    """From how many partitions to how many."""

    before: int
    after: int

    def candidates(self, source: int) -> range:
        """Return the partitions that a key of the old partition `source` can have now."""
        step = gcd(self.before, self.after)
        return range(source % step, self.after, step)


def partitions_of_imeis(imeis: "npt.NDArray[np.uint64]", partitions: int) -> Partitions:
    """Return the partition of each IMEI's 15 digits, as `ingress.batching.partition_of` computes it of one key."""
    powers = np.array([10**power for power in reversed(range(_DIGITS))], np.uint64)
    keys = (imeis[:, None] // powers % np.uint64(10) + np.uint64(ord("0"))).astype(np.uint8)
    return ((_murmur2(keys) & _POSITIVE) % np.uint32(partitions)).astype(np.intp)


def _murmur2(keys: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.uint32]":
    """Return the hash of each row of bytes (Austin Appleby's MurmurHash2, as Kafka's default partitioner has it)."""
    count, length = keys.shape
    blocks = length // 4
    words = np.ascontiguousarray(keys[:, : blocks * 4]).view("<u4").reshape(count, blocks)
    hashes = np.full(count, _SEED ^ np.uint32(length), np.uint32)
    for block in range(blocks):
        mixed = words[:, block] * _M
        mixed = (mixed ^ (mixed >> _R)) * _M
        hashes = (hashes * _M) ^ mixed
    for place in reversed(range(length % 4)):
        hashes ^= keys[:, blocks * 4 + place].astype(np.uint32) << np.uint32(8 * place)
    if length % 4:
        hashes *= _M
    hashes = (hashes ^ (hashes >> np.uint32(13))) * _M
    return hashes ^ (hashes >> np.uint32(15))


def route_rows(rows: Rows, source: int, growth: Growth) -> dict[int, Rows]:
    """Return the rows of the old partition `source` by the partitions that they belong to now; each is in order."""
    imeis = imeis_of(rows)
    targets = partitions_of_imeis(imeis, growth.after)
    targets[imeis == 0] = -1
    order = np.argsort(targets, kind="stable")
    found, begins = np.unique(targets[order], return_index=True)
    parts = dict(zip(found.tolist(), np.split(rows[order], begins[1:]), strict=True)) if len(rows) else {}
    everywhere = parts.pop(-1, None)
    if everywhere is not None:
        for target in growth.candidates(source):
            parts[target] = np.concatenate([parts[target], everywhere]) if target in parts else everywhere
    return parts
