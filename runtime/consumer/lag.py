"""How many records a partition still has to read, as its fetcher knows it."""

from aiokafka.structs import TopicPartition
from faust.types import TP

from runtime.adapters import aiokafka
from runtime.adapters.faust import BatchApp


def records_behind(app: BatchApp, tp: TP) -> int:
    """Return the offsets of `tp` that have not been handed to a task yet; 0 if the partition is not assigned."""
    return aiokafka.records_behind(app.aiokafka_consumer, TopicPartition(tp.topic, tp.partition))
