"""What the processes do each second at a load: their costs are made of it. Pure."""

from typing import NamedTuple

#: Of each partition in a transaction: the events for all, the window's changelog, the account, the latest states.
_TOPICS_OF_A_PARTITION = 4
_INGRESS_LINGER_S = 0.001  # EVENTPUSH_INGRESS_LINGER_MS


class Demand(NamedTuple):
    """Work of all processes of a kind, per second."""

    events: float
    processes: float = 1.0  # one that does nothing costs something too
    writes: float = 0.0  # of the ingress to Kafka
    transactions: float = 0.0  # of the stream workers
    batches: float = 0.0  # of records in those transactions: one for each topic and partition
    inserts: float = 0.0  # of the sinks into ClickHouse


def writes(rate: float, processes: int = 1) -> float:
    """Return how often ingress processes write to Kafka: after a pause at once, then once in each linger."""
    return processes / (processes / rate + _INGRESS_LINGER_S)


def batches(rate: float, transactions: float, partitions: int, types: int, workers: int = 1) -> float:
    """Return the expected number of record batches in all transactions, for devices and types that send alike."""
    events = rate / transactions
    of_worker = partitions / workers
    return transactions * (_TOPICS_OF_A_PARTITION * _hit(of_worker, events) + _hit(of_worker * types, events))


def _hit(places: float, events: float) -> float:
    """Return how many of the places get one of the events or more, if each falls on any of them."""
    return places * (1.0 - float((1 - 1 / places) ** events))
