"""Prove up to which arrival everything is stored, from offsets alone. Pure; `sinks.bookkeeping` drives it.

    raw topic ──────> events topic ──────> ClickHouse
                └───> dead-letter topic ─> ClickHouse
                              ^── rows that ClickHouse refused

A partition's proof begins at a moment t, with the end of the raw topic read after it: everything appended before t lies
before that end. It passes three gates, one after another:

    streams have finished the raw topic up to its end                 then read the end of the events topic
    the sink has finished the events topic up to that                 then read the end of the dead-letter topic
    the sink has finished the dead-letter topic up to that            then everything appended before t is stored

Each end is read after the gate before it was passed, so it lies behind everything that came through that gate. All of
it stays within one partition number. Passing a gate cannot be undone, so nothing that is killed or moves in between can
make a proof wrong: it only takes longer, or begins again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka.structs import TopicPartition

from runtime.platform.settings import Settings
from schemas import topics

#: The topics whose ends a proof passes, in this order.
GATES = (topics.RAW, topics.EVENTS, topics.DEAD_LETTER)

#: How far the clocks of two hosts may be apart.
CLOCK_SKEW_US = 2_000_000


def append_delay_us(settings: Settings) -> int:
    """Return the longest time from an event's arrival to its append, in µs.

    The body may take its time; then the producer, which may have given up on a batch, waits once more for what is in
    flight.
    """
    publish_us = settings.ingress_publish_timeout_ms * 1_000
    return int(settings.ingress_body_timeout_s * 1_000_000) + 2 * publish_us + CLOCK_SKEW_US


@dataclass(frozen=True, slots=True)
class _Proof:
    began_us: int
    gate: int  # index in GATES
    end: int  # to be finished at this gate


class Completeness:
    """The proofs of all partitions, one at a time for each; `proven_us` is what earlier ones have proven."""

    def __init__(self, partitions: int, append_delay_us: int, proven_us: Mapping[int, int]) -> None:
        self._append_delay_us = append_delay_us
        self._proofs: dict[int, _Proof] = {}
        #: Everything that arrived before (µs since the epoch) is stored; 0 while nothing is proven. It never decreases.
        self.through_us: dict[int, int] = {at: proven_us.get(at, 0) for at in range(partitions)}

    @property
    def is_whole(self) -> bool:
        """Whether something is proven of every partition.

        A partition that was added has no row yet, and the rows of the others must not go on without it.
        """
        return all(self.through_us.values())

    @property
    def awaited(self) -> dict[TopicPartition, int]:
        """What the proofs wait for: that this topic and partition is finished up to this offset."""
        return {TopicPartition(GATES[proof.gate], at): proof.end for at, proof in self._proofs.items()}

    def advance(self, finished: Collection[TopicPartition], now_us: int, ends: Mapping[TopicPartition, int]) -> bool:
        """Take what of `awaited` is finished, and the ends read after that; return whether anything was proven.

        `now_us` was read in between. An end is the offset after the last record appended, of a transaction that is
        still open too.
        """
        proven = False
        for partition in self.through_us:
            proof: _Proof | None = self._proofs.get(partition)
            if proof is not None and TopicPartition(GATES[proof.gate], partition) in finished:
                proof = self._passed(partition, proof, ends)
                proven |= proof is None
            if proof is None:
                proof = _Proof(now_us, 0, ends[TopicPartition(GATES[0], partition)])
            self._proofs[partition] = proof
        return proven

    def _passed(self, partition: int, proof: _Proof, ends: Mapping[TopicPartition, int]) -> _Proof | None:
        gate = proof.gate + 1
        if gate < len(GATES):
            return _Proof(proof.began_us, gate, ends[TopicPartition(GATES[gate], partition)])
        through_us = proof.began_us - self._append_delay_us
        self.through_us[partition] = max(self.through_us[partition], through_us)
        return None
